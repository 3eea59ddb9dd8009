package enforcer

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"midplane/digsig"
	"midplane/internal/digsig/fanotify"
	"midplane/internal/digsig/gate"
	"midplane/internal/mono"
)

// content reads a descriptor that stays somebody else's.
type content int

// ReadAt implements io.ReaderAt.
func (c content) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		m, err := unix.Pread(int(c), b[n:], off+int64(n))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return n, os.NewSyscallError("pread", err)
		case m == 0:
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

// verifyFile pins a file, reads it and tells the gate.
func (w *worker) verifyFile(ctx context.Context, f *file, job uint64, tid int32) {
	w.mu.Lock()
	r := gate.Result{Key: f.key, Job: job, Pin: w.pin(f)}
	w.mu.Unlock()
	var v *digsig.Verifier
	var verdict digsig.Verdict
	var path string
	if r.Pin >= gate.PinLease || r.Pin == gate.PinNone && w.cfg.Remote {
		v = w.judge.Load()
		path = pathOf(f.fd)
		verdict = w.readFile(ctx, v, f, path, &r, tid)
	}
	now := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if v != nil && !r.Failed {
		f.verdict, f.judged, f.path = verdict, true, path
		var until time.Time
		r.Uses, until = usesOf(v, f)
		r.Generation = v.Generation()
		w.soon(until)
		// By lists that came meanwhile it is judged again first.
		if v == w.judge.Load() {
			w.hand(v, f, r.Uses)
		}
	}
	f.cancel = nil
	w.gate.Result(now, r)
	w.drain(now)
	w.drop(f)
}

// readFile reads and judges content that is pinned.
func (w *worker) readFile(ctx context.Context, v *digsig.Verifier, f *file, path string, r *gate.Result, tid int32) digsig.Verdict {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil { // its size before the lease was another's word
		r.Failed = true
		return digsig.Verdict{}
	}
	var head [headSize]byte
	n, _ := content(f.fd).ReadAt(head[:min(st.Size, headSize)], 0)
	r.Class = classOf(head[:n])
	switch r.Class {
	case gate.ClassScript:
		r.Then = w.interpreterKey(interpreterOf(head[:n]), tid)
	case gate.ClassELF:
		if isLoader(content(f.fd), head[:n]) {
			r.Class = gate.ClassLoader
		}
	}
	q := digsig.Request{Use: digsig.UseExec, At: time.Now(), Path: path}
	sealed, isSealed := w.measure(f.fd)
	if isSealed {
		if known, ok := w.enrolledVerdict(v, sealed, q); ok {
			return known
		}
	}
	q.Signature, q.Carrier = signatureOf(f.fd), digsig.InXattr
	verdict := v.Check(ctx, content(f.fd), st.Size, q)
	if isSealed {
		w.remember(sealed, verdict, path)
	}
	reason := verdict.Reason
	if verdict.Cause != 0 {
		reason = verdict.Cause
	}
	r.Failed = reason == digsig.Unreadable
	return verdict
}

// signatureOf reads a signature in an extended attribute.
func signatureOf(fd int) []byte {
	var b [4096]byte
	for _, attr := range []string{digsig.XattrSecurity, digsig.XattrUser} {
		if n, err := unix.Fgetxattr(fd, attr, b[:]); err == nil && n > 0 {
			return append([]byte(nil), b[:n]...)
		}
	}
	return nil
}

// interpreterKey finds the file that a script names, as the process that executes it sees it.
func (w *worker) interpreterKey(path string, tid int32) gate.Key {
	if path == "" || path[0] != '/' {
		return gate.Key{}
	}
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(int(tid))+"/root"+path, &st) != nil && unix.Stat(path, &st) != nil {
		return gate.Key{}
	}
	return gate.Key{Dev: st.Dev, Ino: st.Ino}
}

// immutable says whether a file cannot be written: its file system has no writing, or it has fs-verity.
func immutable(fd int) bool {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) == nil && fanotify.ImmutableMagic(int64(fs.Type)) {
		return true
	}
	const verity = 0x100000
	var st unix.Statx_t
	return unix.Statx(fd, "", unix.AT_EMPTY_PATH, 0, &st) == nil && st.Attributes&verity != 0
}

// opinion puts a verdict into words, for the use that was asked about.
func (w *worker) opinion(v digsig.Verdict, asked gate.Uses, path string) Opinion {
	use := digsig.UseExec
	switch {
	case asked&gate.MayExec != 0:
	case asked&gate.MayLib != 0:
		use = digsig.UseLib
	case asked&gate.MayScript != 0:
		use = digsig.UseScript
	case asked&gate.MayInterp != 0:
		use = digsig.UseInterp
	case asked&gate.MayCheck != 0:
		use = digsig.UseCheck
	case asked&gate.MayRead != 0:
		use = digsig.UseOpen
	}
	return opinionOf(w.judge.Load().RecheckRequest(v, digsig.Request{Use: use, At: time.Now(), Path: path}))
}

func opinionOf(v digsig.Verdict) Opinion {
	reason := v.Reason
	if v.Cause != 0 {
		reason = v.Cause
	}
	o := Opinion{Allow: good(v), Reason: reason.String(), Detail: v.Detail, Name: v.Name, Version: v.Version}
	if v.Digest != ([32]byte{}) {
		o.Digest = hex.EncodeToString(v.Digest[:])
	}
	if v.Key != (digsig.KeyID{}) {
		o.Key = fmt.Sprint(v.Key)
	}
	if v.Carrier != digsig.NoCarrier {
		o.Carrier = v.Carrier.String()
	}
	return o
}
