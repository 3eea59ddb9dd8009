package bpflsm

import (
	"context"
	"errors"
	"os"

	"midplane/digsig"
	"midplane/internal/digsig/verity/enrol"
)

// Hand has a verdict made about a file, and hands it to the gate, so that the kernel decides as tier F did: a file with
// fs-verity is granted by its digest, once and for all files with it; of another the inode gets a verdict, that ends with
// the next writer. What is not Signed gets nothing, and loses what it had. verify reads f. As for Begin, the caller sees
// to it that nobody has f open for writing before it is called (the lease of tier F does), and that one at a time judges
// an inode. The verdict is that of verify, whatever the error, which is the gate's.
func (g *Gate) Hand(f *os.File, verify func() digsig.Verdict) (digsig.Verdict, error) {
	measured, err := enrol.Measure(f)
	if err == nil {
		v := verify()
		sum, ok := measured.SHA256()
		if !ok {
			return v, errors.New("bpflsm: " + f.Name() + ": its fs-verity is not by SHA-256")
		}
		d := Digest{Verity, sum}
		if v.Reason != digsig.Signed {
			return v, g.Revoke(d)
		}
		return v, g.grant(Grant{Digest: d, Roles: v.Roles})
	}
	if err := g.Begin(f); err != nil {
		return verify(), err
	}
	v := verify()
	if v.Reason != digsig.Signed {
		return v, g.Forget(f)
	}
	if err := g.grant(Grant{Digest: Digest{Content, v.Digest}, Roles: v.Roles}); err != nil {
		return v, errors.Join(err, g.Forget(f))
	}
	return v, g.Commit(f, v.Digest)
}

// grant is Allow, but who is a manager stays one.
func (g *Gate) grant(n Grant) error {
	old, err := g.Granted(n.Digest)
	if err != nil {
		return err
	}
	n.Manager = old.Manager
	return g.Allow(n)
}

// Collect looks for what is enrolled under the roots and verifies it, for Replace: after a start, or when trust or lists
// have changed. This program's own file is to be a manager. report, if it is not nil, is called for each file, one at a
// time; files without fs-verity are among them as enrol.Plain, and get no grant.
func Collect(ctx context.Context, v *digsig.Verifier, roots []string, report func(enrol.Result)) ([]Grant, error) {
	own := ownDigest()
	found := map[Digest]Grant{}
	for _, root := range roots {
		err := enrol.Tree(ctx, root, enrol.Config{Verifier: v, Scan: true}, func(r enrol.Result) {
			if g, ok := GrantOf(r); ok {
				g.Roles |= found[g.Digest].Roles
				g.Manager = g.Digest == own
				found[g.Digest] = g
			}
			if report != nil {
				report(r)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	all := make([]Grant, 0, len(found))
	for _, g := range found {
		all = append(all, g)
	}
	return all, nil
}

// GrantOf returns the grant for what was enrolled; ok is false for what was not.
func GrantOf(r enrol.Result) (g Grant, ok bool) {
	sum, ok := r.Digest.SHA256()
	if r.Outcome != enrol.Enrolled || !ok {
		return Grant{}, false
	}
	return Grant{Digest: Digest{Verity, sum}, Roles: r.Verdict.Roles}, true
}

// ownDigest returns the fs-verity digest of the running program, zero if it has none.
func ownDigest() Digest {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return Digest{}
	}
	defer f.Close()
	d, err := enrol.Measure(f)
	if err != nil {
		return Digest{}
	}
	sum, ok := d.SHA256()
	if !ok {
		return Digest{}
	}
	return Digest{Verity, sum}
}
