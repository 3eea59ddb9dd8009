package tierb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"midplane/digsig"
	"midplane/internal/digsig/bpflsm"
	"midplane/internal/digsig/elfsig"
	"midplane/internal/digsig/verity"
	"midplane/internal/digsig/verity/enrol"
)

// variants are signed programs that were changed afterwards, and cases that they stand for.
var variants = []struct {
	number int
	what   string
	change func(b []byte) []byte
}{
	{3, "one bit of .text", flip(func([]byte) int { return 0x1000 + 8 })},
	{4, "entry point", flip(func([]byte) int { return 24 })},
	{5, "PT_INTERP's offset", flip(func(b []byte) int { return phoff(b) + 56 + 8 })},
	{6, "section table", flip(func(b []byte) int { return shoff(b) + 64 + 4 })},
	{7, "octets after the end", func(b []byte) []byte { return append(b, "more"...) }},
	{8, "signature", flip(func(b []byte) int { return slot(b) + 100 })},
	{8, "zeros after the signature", flip(func(b []byte) int { return len(b) - 1 })},
	{10, "two sections of the signature's name", func(b []byte) []byte {
		last := shoff(b) + 64*(int(binary.LittleEndian.Uint16(b[60:]))-1)
		copy(b[shoff(b)+64*3:], b[last:last+4])
		return b
	}},
	{11, "a segment over the signature", func(b []byte) []byte {
		binary.LittleEndian.PutUint64(b[phoff(b)+56*2+32:], uint64(len(b)))
		return b
	}},
	{11, "a section at the end of all addresses", func(b []byte) []byte {
		binary.LittleEndian.PutUint64(b[shoff(b)+64+24:], 1<<64-1)
		return b
	}},
	{17, "an unknown algorithm", func(b []byte) []byte { b[slot(b)+16] = 77; return b }},
	{18, "cut at the end", func(b []byte) []byte { return b[:len(b)-1] }},
	{18, "signature cut off", func(b []byte) []byte { return b[:slot(b)] }},
	{19, "no section table", func(b []byte) []byte { clear(b[40:48]); return b }},
	{19, "65,280 sections", func(b []byte) []byte { b[60], b[61] = 0, 0xff; return b }},
	{19, "a section of 4 GB", func(b []byte) []byte { binary.LittleEndian.PutUint64(b[shoff(b)+64+32:], 1<<32); return b }},
}

func flip(at func([]byte) int) func([]byte) []byte {
	return func(b []byte) []byte { b[at(b)] ^= 1; return b }
}

func phoff(b []byte) int { return int(binary.LittleEndian.Uint64(b[32:])) }
func shoff(b []byte) int { return int(binary.LittleEndian.Uint64(b[40:])) }
func slot(b []byte) int  { return len(b) - elfsig.SlotSize }

func variant(i int) string { return fmt.Sprintf("/mnt/bad/variant%d", i) }

// variants writes the changed programs before anything is enrolled.
func (b *bench) variants() {
	signed := b.read("/mnt/prog/hello")
	for i, v := range variants {
		b.write(variant(i), v.change(bytes.Clone(signed)))
	}
	other := b.read("/mnt/prog/load")
	copy(other[slot(other):], signed[slot(signed):])
	b.write("/mnt/bad/borrowed", other)
}

// refused is deny when the file was refused at enrolment and does not run.
func (b *bench) refused(path string, reasons ...digsig.Reason) string {
	r, ok := b.enrolled[path]
	switch {
	case !ok:
		return "was not looked at"
	case r.Outcome != enrol.Refused:
		return fmt.Sprintf("enrolment: %d, %v", r.Outcome, r.Verdict)
	case len(reasons) > 0 && !slices.Contains(reasons, r.Verdict.Reason):
		return "refused as " + r.Verdict.Reason.String()
	}
	return outcome(program(path))
}

// signatures are the cases about what is signed, and how.
func (b *bench) signatures() {
	b.run(1, "signed and intact: dynamic, PIE", allow, "/mnt/prog/hello")
	b.run(1, "signed and intact: static", allow, "/mnt/prog/static")
	b.run(1, "signed and intact: 32 bits", allow, "/mnt/prog/hello32")
	b.case_(2, "unsigned", deny, b.refused("/mnt/bad/hello", digsig.Unsigned))
	f, err := os.Open("/mnt/bad/hello")
	b.must(err)
	b.must(enrol.Enable(f, verity.Params{}))
	f.Close()
	b.run(2, "unsigned, fs-verity turned on by somebody else", deny, "/mnt/bad/hello")
	for i, v := range variants {
		b.case_(v.number, "changed after signing: "+v.what, deny, b.refused(variant(i)))
	}
	b.case_(9, "signature of another file", deny, b.refused("/mnt/bad/borrowed", digsig.Broken))
	b.case_(12, "unknown key", deny, b.refused("/mnt/bad/stranger", digsig.UnknownKey))
	b.case_(13, "expired", deny, b.refused("/mnt/bad/expired", digsig.Expired))
	b.case_(13, "not yet valid", deny, b.refused("/mnt/bad/future", digsig.NotYetValid))

	// Revocation: what runs, runs no more; a second enrolment refuses it.
	path := "/mnt/bad/revoked"
	before := outcome(program(path))
	first, second := b.revocations(1), b.revocations(2)
	v, err := b.v.WithRevocations(second, time.Now())
	b.must(err)
	b.v = v
	sum, _ := b.enrolled[path].Digest.SHA256()
	b.must(b.g.Revoke(bpflsm.Digest{Kind: bpflsm.Verity, Sum: sum}))
	after := outcome(program(path))
	r := enrol.File(b.t.Context(), path, enrol.Config{Verifier: b.v})
	if before != allow || r.Outcome != enrol.Refused || r.Verdict.Reason != digsig.Revoked {
		after = fmt.Sprintf("%s before, %s after, enrolled again: %v", before, after, r.Verdict)
	}
	b.case_(14, "revoked digest, that ran before", deny, after)

	// Rollback: the whole list of grants is made anew, and replaces the one of before in one step.
	path = "/mnt/bad/old"
	before = outcome(program(path))
	r = enrol.File(b.t.Context(), path, enrol.Config{Verifier: b.v})
	_, err = b.g.Replace(append(b.grants(), b.libraries()...))
	b.must(err)
	after = outcome(program(path))
	if before != allow || r.Verdict.Reason != digsig.Rollback {
		after = fmt.Sprintf("%s before, %s after: %v", before, after, r.Verdict)
	}
	b.case_(15, "version below the least good one, that ran before", deny, after)
	got := "taken"
	if _, err := b.v.WithRevocations(first, time.Now()); errors.Is(err, digsig.ErrOlder) {
		got = "keep new"
	}
	b.case_(16, "an older list of revocations", "keep new", got)
}

// handed are the cases about verdicts of tier F that the gate takes over.
func (b *bench) handed() {
	give := func(path string) digsig.Verdict {
		b.t.Helper()
		f, err := os.Open(path)
		b.must(err)
		defer f.Close()
		v, err := b.g.Hand(f, func() digsig.Verdict {
			return b.v.VerifyFile(b.t.Context(), path, digsig.Request{Use: digsig.UseExec, At: time.Now()})
		})
		b.must(err)
		return v
	}
	const tmpfs, verity = "/dev/shm/handed", "/mnt/prog/static"
	b.write(tmpfs, b.read("/mnt/prog/static"))
	b.run(1, "signed, without fs-verity, before tier F", deny, tmpfs)
	if v := give(tmpfs); v.Reason != digsig.Signed {
		b.t.Errorf("%v", v)
	}
	b.run(1, "signed, without fs-verity, after tier F", allow, tmpfs)
	sum, _ := b.enrolled[verity].Digest.SHA256()
	b.must(b.g.Revoke(bpflsm.Digest{Kind: bpflsm.Verity, Sum: sum}))
	b.run(1, "signed, with fs-verity, grant lost", deny, verity)
	give(verity)
	b.run(1, "signed, with fs-verity, after tier F", allow, verity)
	b.must(os.Remove(tmpfs))
	b.write(tmpfs, b.read("/mnt/bad/hello"))
	if v := give(tmpfs); v.Reason != digsig.Unsigned {
		b.t.Errorf("%v", v)
	}
	b.run(2, "unsigned, without fs-verity, after tier F", deny, tmpfs)
	b.must(os.Remove(tmpfs))
}

// libraries are the grants of what admit gave.
func (b *bench) libraries() (all []bpflsm.Grant) {
	for _, path := range system {
		f, err := os.Open(path)
		b.must(err)
		d, err := b.g.Known(f)
		f.Close()
		b.must(err)
		g, err := b.g.Granted(d)
		b.must(err)
		all = append(all, g)
	}
	return all
}

// revocations is a signed list.
func (b *bench) revocations(serial uint64) []byte {
	l := &digsig.Revocations{Serial: serial, Issued: time.Now().Add(-time.Minute).Truncate(time.Second), Digests: map[[32]byte]string{}, Below: map[string]digsig.Minimum{"old": {Version: 2, Why: "CVE"}}}
	l.Digests[b.enrolled["/mnt/bad/revoked"].Verdict.File] = "CVE"
	list, err := digsig.SignRevocations(l, signerOf(b.t, key))
	b.must(err)
	return list
}

// mounts makes what must be there before the gate closes.
func (b *bench) mounts() {
	sh := func(line string) {
		b.t.Helper()
		if out, err := exec.Command("/bin/bash", "-ec", line).CombinedOutput(); err != nil {
			b.t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	sh(`mkdir -p /tmp/loop /tmp/low /tmp/up /tmp/work /tmp/over /tmp/bind /tmp/root
mount -o loop /mnt/meta/loop.img /tmp/loop && cp /mnt/bad/hello /tmp/loop/
mount -t tmpfs none /tmp/up && mkdir /tmp/up/u /tmp/up/w
mount -t overlay -o lowerdir=/mnt/prog,upperdir=/tmp/up/u,workdir=/tmp/up/w none /tmp/over
mount --bind /mnt/prog /tmp/bind
mount -t tmpfs none /tmp/root && mkdir /tmp/root/bin && cp /mnt/bad/hello /tmp/root/bin/
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
echo ':mp:M::MPMAGIC::/mnt/bad/hello:F' > /proc/sys/fs/binfmt_misc/register
ln /mnt/prog/hello /mnt/prog/hardlink && ln -s /mnt/prog/hello /mnt/prog/symlink`)
}

// filesystems are the cases about where a file lies.
func (b *bench) filesystems() {
	b.run(27, "unsigned on a loop mount", deny, "/tmp/loop/hello")
	b.run(28, "signed, through a bind mount", allow, "/tmp/bind/hello")
	b.run(28, "signed, hard link", allow, "/mnt/prog/hardlink")
	b.run(28, "signed, symbolic link", allow, "/mnt/prog/symlink")
	b.must(os.Rename("/mnt/prog/hardlink", "/mnt/bad/renamed"))
	b.run(28, "signed, renamed", allow, "/mnt/bad/renamed")
	b.must(os.Remove("/mnt/prog/symlink"))
	b.must(os.Symlink("/mnt/bad/hello", "/mnt/prog/symlink"))
	b.run(28, "symbolic link, exchanged for one to an unsigned file", deny, "/mnt/prog/symlink")

	b.run(29, "signed, in an overlay's lower layer, before anybody looked", deny, "/tmp/over/static")
	b.must(b.admit("/tmp/over/static"))
	b.run(29, "signed, in an overlay's lower layer, verified there", allow, "/tmp/over/static")
	f, err := os.OpenFile("/tmp/over/static", os.O_WRONLY|os.O_APPEND, 0)
	b.must(err)
	_, err = f.WriteString("changed")
	b.must(errors.Join(err, f.Close()))
	b.run(29, "the same, copied up and changed", deny, "/tmp/over/static")
	if err := b.admit("/tmp/over/static"); err != nil {
		b.t.Error(err)
	}
	b.run(29, "the same, after another look at it", deny, "/tmp/over/static")

	cmd := program("/bin/hello")
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: "/tmp/root"}
	cmd.Dir = "/"
	b.case_(30, "unsigned, in another root", deny, outcome(cmd))

	b.case_(26, "a tmpfs in namespaces of their own, by nobody", deny, b.nobody())
}

// nobody lets a user without rights run a program from a tmpfs of their own. That it can at all shows a gate that only
// counts.
func (b *bench) nobody() string {
	b.must(b.g.SetPolicy(bpflsm.Policy{Mode: bpflsm.Permissive}, true))
	control := outcome(inNamespaces())
	b.must(b.g.SetPolicy(b.policy(), true))
	if control != allow {
		return "without enforcement: " + control
	}
	return outcome(inNamespaces())
}

func inNamespaces() *exec.Cmd {
	nobody := tries("tmpfs", "/mnt/prog/static")
	nobody.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		Credential:  &syscall.Credential{NoSetGroups: true}, // root there, nobody here
		UidMappings: []syscall.SysProcIDMap{{HostID: 65534, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: 65534, Size: 1}},
	}
	return nobody
}

// changes are the cases about writers.
func (b *bench) changes() {
	const path = "/dev/shm/p"
	fresh := func(number int, what, want string, change func() error) {
		b.t.Helper()
		b.write(path, b.read("/mnt/prog/static"))
		b.must(b.admit(path))
		if s := outcome(program(path)); s != allow {
			b.case_(number, what, want, "before: "+s)
			return
		}
		b.must(change())
		b.run(number, what, want, path)
	}
	open := func(f func(*os.File) error) func() error {
		return func() error {
			w, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			return errors.Join(f(w), w.Close())
		}
	}
	fresh(31, "write(2) after the verdict", deny, open(func(w *os.File) error { _, err := w.WriteAt([]byte{1}, 5000); return err }))
	fresh(32, "store into a shared mapping after the verdict", deny, open(func(w *os.File) error {
		m, err := unix.Mmap(int(w.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		m[5000]++
		return unix.Munmap(m)
	}))
	fresh(34, "rewritten with the same size and times", deny, func() error {
		s, err := os.Stat(path)
		if err != nil {
			return err
		}
		content := b.read(path)
		content[5000]++
		return errors.Join(os.WriteFile(path, content, 0o755), os.Chtimes(path, s.ModTime(), s.ModTime()))
	})
	fresh(31, "cut by name", deny, func() error { return unix.Truncate(path, 4096) })

	b.write(path, b.read("/mnt/prog/static"))
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	b.must(err)
	_, err = unix.Mmap(int(w.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	b.must(errors.Join(err, w.Close()))
	if err := b.admit(path); !errors.Is(err, bpflsm.ErrBusy) {
		b.t.Errorf("a file that somebody has mapped to write: %v", err)
	}
	b.run(32, "a shared mapping from before, whose descriptor is closed", deny, path)

	b.must(os.Remove(path))
	b.write(path, b.read("/mnt/prog/static"))
	f, err := os.Open(path)
	b.must(err)
	b.must(b.g.Begin(f))
	v := b.v.VerifyFile(b.t.Context(), path, digsig.Request{Use: digsig.UseExec, At: time.Now()})
	b.must(open(func(w *os.File) error { _, err := w.WriteAt([]byte{1}, 5000); return err })())
	b.must(b.g.Allow(bpflsm.Grant{Digest: bpflsm.Digest{Kind: bpflsm.Content, Sum: v.Digest}, Roles: v.Roles}))
	if err := b.g.Commit(f, v.Digest); !v.Allow || !errors.Is(err, bpflsm.ErrChanged) {
		b.t.Errorf("%v; %v", v, err)
	}
	f.Close()
	b.run(33, "a writer between the reading and the verdict", deny, path)
	got := "written"
	if _, err := os.OpenFile("/mnt/prog/lib.so", os.O_RDWR, 0); errors.Is(err, unix.EPERM) {
		got = "EPERM"
	}
	b.case_(35, "overwrite a library in use", "EPERM", got)
	b.case_(31, "write(2) to what was enrolled", deny, outcome(tries("write", "/mnt/prog/hello")))
}

// loading are the cases about libraries and loaders.
func (b *bench) loading() {
	loaded := func(cmd *exec.Cmd) string {
		out, err := cmd.CombinedOutput()
		switch {
		case slices.Contains(strings.Split(string(out), "\n"), "loaded"):
			return allow
		case strings.Contains(string(out), "failed to map") || errors.Is(err, unix.EPERM):
			return deny
		}
		return fmt.Sprintf("%v: %s", err, out)
	}
	b.case_(20, "ld.so, that may only be a loader, with an unsigned program", deny, outcome(program(loader, "/mnt/bad/hello")))
	b.case_(20, "ld.so, that may run, with an unsigned program", deny, outcome(program("/mnt/prog/ld", "/mnt/bad/hello")))
	b.case_(20, "ld.so, that may run, with a signed program", allow, outcome(program("/mnt/prog/ld", "/mnt/prog/hello")))
	for _, variable := range []string{"LD_PRELOAD", "LD_AUDIT"} {
		cmd := program("/mnt/prog/hello")
		cmd.Env = append(cmd.Env, variable+"=/mnt/bad/lib.so")
		b.case_(21, variable+" of an unsigned library", deny, loaded(cmd))
		cmd = program("/mnt/prog/hello")
		cmd.Env = append(cmd.Env, variable+"=/mnt/prog/lib.so")
		b.case_(21, variable+" of a signed library", allow, loaded(cmd))
	}
	b.case_(22, "dlopen of an unsigned library", deny, loaded(program("/mnt/prog/load", "/mnt/bad/lib.so")))
	b.case_(22, "dlopen of a signed library", allow, loaded(program("/mnt/prog/load", "/mnt/prog/lib.so")))
	b.case_(22, "a run path that leads to an unsigned library", deny, loaded(program("/mnt/prog/hijack", "/mnt/prog/lib.so")))
	got := outcome(program("/mnt/prog/badloader"))
	b.case_(23, "signed, with an unsigned loader", deny, strings.SplitN(got, " (", 2)[0])

}
