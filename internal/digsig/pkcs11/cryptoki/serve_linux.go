package cryptoki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"midplane/internal/digsig/pkcs11/proto"
)

// server answers for one key.
type server struct {
	m   *Module
	key *Key
	pin []byte // kept only for a key that wants it for each signature
}

// Serve answers requests until there are none any more.
func Serve(in io.Reader, out io.Writer) error {
	runtime.LockOSThread()
	s := &server{}
	defer s.close()
	for {
		var q proto.Request
		if err := proto.Read(in, &q); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		a := s.answer(&q)
		clear(q.PIN)
		if err := proto.Write(out, a); err != nil {
			return err
		}
	}
}

func (s *server) close() {
	clear(s.pin)
	if s.m != nil {
		_ = s.m.Close() // the process ends
	}
}

// failure is an error with its code.
type failure struct {
	code proto.Code
	err  error
}

func (f *failure) Error() string { return f.err.Error() }

func fail(code proto.Code, format string, args ...any) error {
	return &failure{code, fmt.Errorf(format, args...)}
}

func (s *server) answer(q *proto.Request) *proto.Response {
	var a proto.Response
	var err error
	switch {
	case q.Op == proto.OpOpen || q.Op == proto.OpGenerate:
		a.Public, err = s.open(q)
	case q.Op != proto.OpSign:
		err = fail(proto.CodeUsage, "operation %q", q.Op)
	case s.key == nil:
		err = fail(proto.CodeUsage, "no key is open")
	default:
		a.Signature, err = s.key.Sign(q.Data, s.pin)
	}
	if err != nil {
		a = proto.Response{Code: code(err), Error: err.Error()}
	}
	return &a
}

func code(err error) proto.Code {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f.code
	case IsLocked(err):
		return proto.CodeLocked
	case IsWrongPIN(err):
		return proto.CodePIN
	case errors.Is(err, ErrNoKey), errors.Is(err, ErrMany), errors.Is(err, ErrKind), errors.Is(err, ErrExists), errors.Is(err, ErrNoCurve):
		return proto.CodeKey
	}
	return proto.CodeDevice
}

func (s *server) open(q *proto.Request) ([]byte, error) {
	if s.m != nil {
		return nil, fail(proto.CodeUsage, "a helper is for one key")
	}
	var err error
	if s.m, err = Load(q.Module); err != nil {
		return nil, fail(proto.CodeModule, "%w", err)
	}
	t, err := s.token(&q.Match)
	if err != nil {
		return nil, err
	}
	generate := q.Op == proto.OpGenerate
	session, err := s.m.Open(t, generate)
	if err != nil {
		return nil, err
	}
	switch {
	case t.Locked():
		return nil, fail(proto.CodeLocked, "token %s", t.Label)
	case q.Login:
		err = session.Login(q.PIN)
	case t.KeyPad():
		err = session.Login(nil)
	case t.LoginRequired():
		err = fail(proto.CodeNoPIN, "token %s", t.Label)
	}
	if err != nil {
		return nil, err
	}
	if generate {
		s.key, err = session.Generate(q.Algorithm == proto.Ed25519, q.Match.Object, q.Match.ID)
	} else {
		s.key, err = session.Find(q.Match.Object, q.Match.ID)
	}
	if err != nil {
		return nil, err
	}
	if s.key.always {
		s.pin = append(s.pin, q.PIN...)
	}
	return x509.MarshalPKIXPublicKey(s.key.Public)
}

// token is the one that fits.
func (s *server) token(want *proto.Match) (*Token, error) {
	all, err := s.m.Tokens()
	if err != nil {
		return nil, err
	}
	var fits []*Token
	for i := range all {
		t := &all[i]
		if fit(want.Token, t.Label) && fit(want.Manufacturer, t.Manufacturer) && fit(want.Model, t.Model) && fit(want.Serial, t.Serial) && (want.Slot == nil || *want.Slot == t.Slot) {
			fits = append(fits, t)
		}
	}
	if len(fits) == 1 {
		return fits[0], nil
	}
	if len(fits) > 1 {
		return nil, fail(proto.CodeToken, "%d tokens fit: name one by token or serial", len(fits))
	}
	var labels []string
	for _, t := range all {
		labels = append(labels, fmt.Sprintf("%q", t.Label))
	}
	return nil, fail(proto.CodeToken, "there are %d: %s", len(all), strings.Join(labels, ", "))
}

func fit(want, is string) bool { return want == "" || want == is }
