package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"midplane/digsig"
	"midplane/internal/digsig/bsign"
)

// verifyBsign verifies bsign's signature in one file.
func verifyBsign(ctx context.Context, path string, ring *bsign.KeyRing, at time.Time) (*bsign.Result, error) {
	f, fi, err := digsig.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bsign.Verify(ctx, f, fi.Size(), ring, at)
}

// bsignCode is the exit code that fits an error of package bsign.
func bsignCode(err error) exitCode {
	for _, c := range []struct {
		err  error
		code exitCode
	}{
		{nil, 0}, {bsign.ErrNone, exitUnsigned}, {bsign.ErrHazard, exitBroken}, {bsign.ErrBroken, exitBroken}, {bsign.ErrUnknownKey, exitUnknownKey},
		{bsign.ErrRevoked, exitRevoked}, {bsign.ErrExpired, exitExpired}, {bsign.ErrWeak, exitRefused},
	} {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	return 1
}

// bsign is verify with --bsign.
func (o *verifying) bsign(ctx context.Context, e *env, files []string, at time.Time) error {
	ring, err := bsign.ReadKeyRing(o.keyring)
	if err != nil {
		return err
	}
	worst := exitCode(0)
	list := &jsonList{w: e.out}
	for _, path := range files {
		r, err := verifyBsign(ctx, path, ring, at)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		code := bsignCode(err)
		worst = graver(worst, code)
		var writing error
		switch {
		case o.quiet:
		case o.json:
			v := struct {
				Path    string `json:"path"`
				Good    bool   `json:"good"`
				Code    int    `json:"code"`
				Detail  string `json:"detail,omitempty"`
				Key     string `json:"key,omitempty"`
				User    string `json:"user,omitempty"`
				Created string `json:"created,omitempty"`
			}{Path: path, Good: err == nil, Code: int(code)}
			if err != nil {
				v.Detail = err.Error()
			} else {
				v.Key, v.User, v.Created = r.Key, r.User, r.Created.UTC().Format(time.RFC3339)
			}
			writing = list.add(v)
		case err != nil:
			_, writing = fmt.Fprintf(e.out, "%s: bsign: %v\n", path, err)
		default:
			_, writing = fmt.Fprintf(e.out, "%s: bsign: good: signed by %s (%s) on %s\n", path, r.Key, r.User, r.Created.UTC().Format(time.DateOnly))
		}
		if writing != nil {
			return writing
		}
	}
	if o.json && !o.quiet {
		if err := list.end(); err != nil {
			return err
		}
	}
	if worst != 0 {
		return worst
	}
	return nil
}

// admitted says whether a file may be signed: with --bsign only if its old signature is good.
func (s *signing) admitted(ctx context.Context, path string, dir bool) error {
	if s.keyring == "" {
		return nil
	}
	if dir {
		return errors.New("--bsign is for files, not for directories")
	}
	if s.ring == nil {
		ring, err := bsign.ReadKeyRing(s.keyring)
		if err != nil {
			return err
		}
		s.ring = ring
	}
	_, err := verifyBsign(ctx, path, s.ring, time.Time{})
	return err
}
