package enforcer

import "midplane/digsig"

// CheckConfig says what Check looks at.
type CheckConfig struct {
	Verifier *digsig.Verifier
	Mounts   []string                                     // only files on the file systems of these paths; none: all
	Progress func(done, total int)                        // called from one goroutine at a time; nil: not
	Known    func(dev, ino uint64) (digsig.Verdict, bool) // for the enforcer: what it knows of content that cannot change; nil: nothing
}
