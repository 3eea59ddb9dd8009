//go:build !linux

package loop

import "midplane/internal/sys"

type poller struct{}

func (*poller) remove(*stdEnd) {}
func (*poller) stop()          {}

func (l *stdLoop) Poll(int, Mask, any) (Handle, error) {
	return 0, &sys.UnsupportedError{Feature: "watching descriptors outside of Linux"}
}

func (l *stdLoop) Rearm(Handle) error { return ErrKind }
