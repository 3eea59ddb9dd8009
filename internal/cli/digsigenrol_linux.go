package cli

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"midplane/digsig"
	"midplane/internal/digsig/verity/enrol"
)

// isNobody says whether nobody listens at a socket.
func isNobody(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && (errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED))
}

func enrolTree(ctx context.Context, root, store string, scan bool, workers int, report func(enrolment) error) error {
	s, err := digsig.OpenStore(store)
	if err != nil {
		return err
	}
	v, err := s.Load(time.Now())
	if v == nil {
		return err
	}
	names := map[enrol.Outcome]string{enrol.Enrolled: "enrolled", enrol.Refused: "refused", enrol.Plain: "plain", enrol.Failed: "failed"}
	var failed error
	err = enrol.Tree(ctx, root, enrol.Config{Verifier: v, Scan: scan, Workers: workers}, func(r enrol.Result) {
		e := enrolment{Path: r.Path, Outcome: names[r.Outcome], New: r.New}
		switch r.Outcome {
		case enrol.Enrolled:
			e.Digest = r.Digest.String()
		case enrol.Refused:
			e.Detail = line(r.Verdict)
		case enrol.Failed:
			e.Detail = r.Err.Error()
		}
		if failed == nil {
			failed = report(e)
		}
	})
	return errors.Join(failed, err)
}
