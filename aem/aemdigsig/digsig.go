// Package aemdigsig makes events of what a digsig enforcer denies.
package aemdigsig

import (
	"context"
	"fmt"
	"time"

	"midplane/aem"
	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/enforcer"
)

// Denial is that something was not allowed to run, or would not have been (Enforced is false then: the enforcer learns or
// only warns).
type Denial struct {
	Time     time.Time
	Enforced bool
	Reason   string // why, by its short name
	Detail   string
	Use      string // exec, interp, lib, script, check, open
	Path     string // as the enforcer sees it
	Digest   string
	PID      int    // who asked
	UID      int    // -1 if it is not known
	Exe      string // of who asked
	Lost     uint64 // only this is set: so many records of the log were lost
}

// Denials is the source of what the enforcer that listens on a control socket denies, "" for the usual one. Only root may
// ask. It ends by itself with the enforcer, or when there is none: with KeepAlive it comes back.
func Denials(socket string) aem.Source[Denial] {
	c := enforcer.Dial(socket)
	return aem.Func(fmt.Sprintf("denials %s", socket), func(ctx context.Context, emit func(Denial) error) error {
		return c.Events(ctx, func(r audit.Record) bool {
			if d, ok := denial(&r); ok {
				_ = emit(d)
			}
			return ctx.Err() == nil
		})
	})
}

func denial(r *audit.Record) (d Denial, ok bool) {
	switch {
	case r.Type == "lost":
		return Denial{Time: r.Time, Lost: r.Count}, true
	case r.Type == "verdict" && (r.Verdict == "deny" || r.Verdict == "would-deny"):
		d = Denial{
			Time: r.Time, Enforced: r.Verdict == "deny", Reason: r.Reason, Detail: r.Detail, Use: r.Use, Path: r.Path, Digest: r.Digest, PID: r.PID, UID: -1, Exe: r.Exe,
		}
		if r.UID != nil {
			d.UID = *r.UID
		}
		return d, true
	}
	return d, false
}
