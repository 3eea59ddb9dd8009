package cryptoki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

// Curves as CKA_EC_PARAMS names them: an object identifier (RFC 5480, RFC 8410), or for Ed25519 the name in a printable
// string (PKCS #11 2.40, current mechanisms, 2.3.10).
var (
	p256Params    = []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
	ed25519Params = [][]byte{{0x06, 0x03, 0x2b, 0x65, 0x70}, append([]byte{0x13, 0x0c}, "edwards25519"...)}
)

// Errors by which callers choose.
var (
	ErrNoKey   = errors.New("no such key")
	ErrMany    = errors.New("more than one key fits: name it by object and id")
	ErrKind    = errors.New("a key of another kind: want Ed25519 or ECDSA P-256")
	ErrExists  = errors.New("a key with that name is there already")
	ErrNoCurve = errors.New("the token cannot make such keys")
)

// Session is open until the module is closed.
type Session struct {
	m      *Module
	handle ulong
}

// Open opens a session with a token, for writing too if it shall make keys.
func (m *Module) Open(t *Token, write bool) (*Session, error) {
	flags := ulong(flagSerial)
	if write {
		flags |= flagRW
	}
	handle := new(ulong)
	if err := m.call("OpenSession", fnOpenSession, uintptr(t.Slot), flags, nil, nil, unsafe.Pointer(handle)); err != nil {
		return nil, err
	}
	return &Session{m, *handle}, nil
}

// Login logs in with a PIN, or with an empty one at the token's own key pad.
func (s *Session) Login(pin []byte) error { return s.login(userUser, pin) }

func (s *Session) login(user ulong, pin []byte) error {
	var p unsafe.Pointer
	if len(pin) > 0 {
		p = unsafe.Pointer(&pin[0])
	}
	err := s.m.call("Login", fnLogin, s.handle, user, p, len(pin))
	if isRV(err, rvUserLoggedIn) {
		return nil
	}
	return err
}

// IsWrongPIN and IsLocked tell what Login returned.
func IsWrongPIN(err error) bool {
	return isRV(err, rvPINIncorrect, rvPINInvalid, rvPINLength, rvPINExpired)
}

// IsLocked says that too many wrong PINs were tried.
func IsLocked(err error) bool { return isRV(err, rvPINLocked) }

// attributes make a template of which the values are pinned.
type attributes struct {
	list []attribute
	pin  runtime.Pinner
}

func (a *attributes) bytes(kind ulong, b []byte) *attributes {
	at := attribute{kind: kind, size: ulong(len(b))}
	if len(b) > 0 {
		b = bytes.Clone(b)
		at.value = unsafe.Pointer(&b[0])
		a.pin.Pin(at.value)
	}
	a.list = append(a.list, at)
	return a
}

func (a *attributes) number(kind, v ulong) *attributes {
	p := new(ulong)
	*p = v
	a.pin.Pin(p)
	a.list = append(a.list, attribute{kind, unsafe.Pointer(p), unsafe.Sizeof(*p)})
	return a
}

func (a *attributes) flag(kind ulong, v bool) *attributes {
	b := []byte{0}
	if v {
		b[0] = 1
	}
	return a.bytes(kind, b)
}

func (a *attributes) pointer() any {
	if len(a.list) == 0 {
		return nil
	}
	return unsafe.Pointer(&a.list[0])
}

// find returns at most limit objects of a class, with a label or id unless they are empty.
func (s *Session) find(class ulong, label string, id []byte, limit int) ([]ulong, error) {
	var a attributes
	defer a.pin.Unpin()
	a.number(attrClass, class)
	if label != "" {
		a.bytes(attrLabel, []byte(label))
	}
	if len(id) > 0 {
		a.bytes(attrID, id)
	}
	if err := s.m.call("FindObjectsInit", fnFindObjectsInit, s.handle, a.pointer(), len(a.list)); err != nil {
		return nil, err
	}
	found := make([]ulong, limit)
	n := new(ulong)
	err := s.m.call("FindObjects", fnFindObjects, s.handle, unsafe.Pointer(&found[0]), limit, unsafe.Pointer(n))
	if err = errors.Join(err, s.m.call("FindObjectsFinal", fnFindObjectsFinal, s.handle)); err != nil {
		return nil, err
	}
	if *n > ulong(limit) {
		return nil, fmt.Errorf("the library found %d objects where %d were asked for", *n, limit)
	}
	return found[:*n], nil
}

// value reads an attribute of at most 1,024 octets; nil if the object has none.
func (s *Session) value(object, kind ulong) ([]byte, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	buf := make([]byte, 1024)
	pin.Pin(&buf[0])
	a := &attribute{kind, unsafe.Pointer(&buf[0]), ulong(len(buf))}
	if err := s.m.call("GetAttributeValue", fnGetAttributeValue, s.handle, object, unsafe.Pointer(a), 1); err != nil {
		if isRV(err, rvAttributeType) {
			return nil, nil
		}
		return nil, err
	}
	if a.size > ulong(len(buf)) { // also when it is not available: the largest number
		return nil, nil
	}
	return buf[:a.size], nil
}

func (s *Session) number(object, kind ulong) (ulong, error) {
	b, err := s.value(object, kind)
	if err != nil {
		return 0, err
	}
	if len(b) != int(unsafe.Sizeof(ulong(0))) {
		return 0, fmt.Errorf("attribute %#x of %d octets is no number", kind, len(b))
	}
	return *(*ulong)(unsafe.Pointer(&b[0])), nil
}

// Key is a private key that can sign.
type Key struct {
	s      *Session
	object ulong
	always bool // it wants the PIN for each signature
	Public crypto.PublicKey
}

// Find finds a private key by label and id, of which either may be empty, and its public key beside it.
func (s *Session) Find(label string, id []byte) (*Key, error) {
	// Keys of other kinds may have the same label; one that we can use decides.
	found, err := s.find(classPrivate, label, id, 64)
	if err != nil {
		return nil, err
	}
	var usable []ulong
	for _, o := range found {
		if kind, err := s.number(o, attrKeyType); err == nil && (kind == keyEC || kind == keyEdwards) {
			usable = append(usable, o)
		}
	}
	switch {
	case len(found) == 0:
		return nil, ErrNoKey
	case len(usable) == 0:
		return nil, ErrKind
	case len(usable) > 1:
		return nil, ErrMany
	}
	return s.key(usable[0])
}

func (s *Session) key(object ulong) (*Key, error) {
	id, err := s.value(object, attrID)
	if err != nil {
		return nil, err
	}
	label, err := s.value(object, attrLabel)
	if err != nil {
		return nil, err
	}
	if len(id) == 0 && len(label) == 0 {
		return nil, fmt.Errorf("%w: the private key has neither id nor label by which to find its public key", ErrNoKey)
	}
	// The id is what belongs together; labels are for people.
	if len(id) > 0 {
		label = nil
	}
	publics, err := s.find(classPublic, string(label), id, 2)
	if err != nil {
		return nil, err
	}
	if len(publics) != 1 {
		return nil, fmt.Errorf("%w: %d public keys with id %x, label %q", ErrNoKey, len(publics), id, label)
	}
	public, err := s.public(publics[0])
	if err != nil {
		return nil, err
	}
	always, err := s.value(object, attrAlwaysAuth)
	if err != nil {
		return nil, err
	}
	return &Key{s, object, bytes.Equal(always, []byte{1}), public}, nil
}

func (s *Session) public(object ulong) (crypto.PublicKey, error) {
	params, err := s.value(object, attrECParams)
	if err != nil {
		return nil, err
	}
	point, err := s.value(object, attrECPoint)
	if err != nil {
		return nil, err
	}
	return publicKey(params, point)
}

// publicKey reads curve and point. The point should be in an octet string; some libraries give it bare.
func publicKey(params, point []byte) (crypto.PublicKey, error) {
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	switch {
	case bytes.Equal(params, p256Params):
		return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	case bytes.Equal(params, ed25519Params[0]) || bytes.Equal(params, ed25519Params[1]):
		if len(point) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("an Ed25519 public key of %d octets", len(point))
		}
		return ed25519.PublicKey(bytes.Clone(point)), nil
	}
	return nil, fmt.Errorf("%w; its curve is %x", ErrKind, params)
}

// Sign signs a message with an Ed25519 key, and a digest with one on P-256; the result has 64 octets if the token is
// right. pin is for keys that want it each time.
func (k *Key) Sign(data, pin []byte) ([]byte, error) {
	m := &mechanism{kind: mechECDSA}
	if _, ok := k.Public.(ed25519.PublicKey); ok {
		m.kind = mechEdDSA
	}
	if err := k.s.m.call("SignInit", fnSignInit, k.s.handle, unsafe.Pointer(m), k.object); err != nil {
		return nil, err
	}
	if k.always {
		if err := k.s.login(userContext, pin); err != nil {
			return nil, err
		}
	}
	if len(data) == 0 {
		return nil, errors.New("nothing to sign")
	}
	sig := make([]byte, 512)
	n := new(ulong)
	*n = ulong(len(sig))
	if err := k.s.m.call("Sign", fnSign, k.s.handle, unsafe.Pointer(&data[0]), len(data), unsafe.Pointer(&sig[0]), unsafe.Pointer(n)); err != nil {
		return nil, err
	}
	if *n > ulong(len(sig)) {
		return nil, fmt.Errorf("a signature of %d octets", *n)
	}
	return sig[:*n], nil
}

// Generate makes a key that never leaves the token. Without an id it gets its label as one, so that both halves belong
// together.
func (s *Session) Generate(edwards bool, label string, id []byte) (*Key, error) {
	if len(id) == 0 {
		id = []byte(label)
	}
	for _, class := range []ulong{classPrivate, classPublic} {
		for _, by := range []struct {
			label string
			id    []byte
		}{{label, nil}, {"", id}} {
			if found, err := s.find(class, by.label, by.id, 1); err != nil {
				return nil, err
			} else if len(found) > 0 {
				return nil, ErrExists
			}
		}
	}
	kind, gen, curves := ulong(keyEC), ulong(mechECGen), [][]byte{p256Params}
	if edwards {
		kind, gen, curves = keyEdwards, mechEdwardsGen, ed25519Params
	}
	var err error
	for _, curve := range curves {
		var object ulong
		if object, err = s.generate(kind, gen, curve, label, id); err == nil {
			return s.key(object)
		}
		if !isRV(err, rvArguments, rvAttributeValue, rvMechanismParam, rvDomainParams, rvCurveNotSupported) {
			break
		}
	}
	if isRV(err, rvMechanism, rvCurveNotSupported) {
		err = fmt.Errorf("%w: %w", ErrNoCurve, err)
	}
	return nil, err
}

func (s *Session) generate(kind, gen ulong, curve []byte, label string, id []byte) (ulong, error) {
	var public, private attributes
	defer public.pin.Unpin()
	defer private.pin.Unpin()
	public.number(attrClass, classPublic).number(attrKeyType, kind).flag(attrToken, true).flag(attrVerify, true).flag(attrPrivate, false).
		bytes(attrECParams, curve).bytes(attrLabel, []byte(label)).bytes(attrID, id)
	private.number(attrClass, classPrivate).number(attrKeyType, kind).flag(attrToken, true).flag(attrPrivate, true).flag(attrSign, true).
		flag(attrSensitive, true).flag(attrExtractable, false).bytes(attrLabel, []byte(label)).bytes(attrID, id)
	m := &mechanism{kind: gen}
	pub, priv := new(ulong), new(ulong)
	err := s.m.call("GenerateKeyPair", fnGenerateKeyPair, s.handle, unsafe.Pointer(m), public.pointer(), len(public.list), private.pointer(), len(private.list),
		unsafe.Pointer(pub), unsafe.Pointer(priv))
	return *priv, err
}
