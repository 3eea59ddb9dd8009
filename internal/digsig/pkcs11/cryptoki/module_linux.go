package cryptoki

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"
)

// The types of pkcs11t.h: CK_ULONG is C's unsigned long, structures are laid out as C does it, which on Linux is how Go
// does it.
type (
	ulong    = uintptr
	version  struct{ major, minor byte }
	initArgs struct {
		createMutex, destroyMutex, lockMutex, unlockMutex uintptr
		flags                                             ulong
		reserved                                          uintptr
	}
	tokenInfo struct {
		label, manufacturer [32]byte
		model, serial       [16]byte
		flags               ulong
		counts              [10]ulong
		hardware, firmware  version
		utcTime             [16]byte
	}
	mechanism struct {
		kind      ulong
		parameter unsafe.Pointer
		size      ulong
	}
	attribute struct {
		kind  ulong
		value unsafe.Pointer
		size  ulong
	}
)

// Numbers of pkcs11t.h.
const (
	flagOSLocking     = 0x2
	flagLoginRequired = 0x4
	flagInitialized   = 0x400
	flagKeyPad        = 0x100
	flagLocked        = 0x40000
	flagRW            = 0x2
	flagSerial        = 0x4

	userUser    = 1
	userContext = 2

	classPublic  = 2
	classPrivate = 3
	keyEC        = 3
	keyEdwards   = 0x40

	attrClass       = 0x0
	attrToken       = 0x1
	attrPrivate     = 0x2
	attrLabel       = 0x3
	attrKeyType     = 0x100
	attrID          = 0x102
	attrSensitive   = 0x103
	attrSign        = 0x108
	attrVerify      = 0x10a
	attrExtractable = 0x162
	attrECParams    = 0x180
	attrECPoint     = 0x181
	attrAlwaysAuth  = 0x202

	mechECGen      = 0x1040
	mechECDSA      = 0x1041
	mechEdwardsGen = 0x1055
	mechEdDSA      = 0x1057

	rvOK                 = 0x0
	rvArguments          = 0x7
	rvAttributeType      = 0x12
	rvAttributeValue     = 0x13
	rvMechanism          = 0x70
	rvMechanismParam     = 0x71
	rvPINIncorrect       = 0xa0
	rvPINInvalid         = 0xa1
	rvPINLength          = 0xa2
	rvPINExpired         = 0xa3
	rvPINLocked          = 0xa4
	rvUserLoggedIn       = 0x100
	rvDomainParams       = 0x130
	rvCurveNotSupported  = 0x140
	rvAlreadyInitialized = 0x191
)

// Places in CK_FUNCTION_LIST, behind the version.
const (
	fnInitialize        = 0
	fnFinalize          = 1
	fnGetSlotList       = 4
	fnGetTokenInfo      = 6
	fnOpenSession       = 12
	fnCloseSession      = 13
	fnLogin             = 18
	fnGetAttributeValue = 24
	fnFindObjectsInit   = 26
	fnFindObjects       = 27
	fnFindObjectsFinal  = 28
	fnSignInit          = 42
	fnSign              = 43
	fnGenerateKeyPair   = 59
	functions           = 68
)

// RV is a return value that is not CKR_OK.
type RV struct {
	Function string
	Value    uintptr
}

var rvNames = map[uintptr]string{
	0x5: "CKR_GENERAL_ERROR", 0x6: "CKR_FUNCTION_FAILED", rvArguments: "CKR_ARGUMENTS_BAD", rvAttributeType: "CKR_ATTRIBUTE_TYPE_INVALID",
	rvAttributeValue: "CKR_ATTRIBUTE_VALUE_INVALID", 0x30: "CKR_DEVICE_ERROR", 0x31: "CKR_DEVICE_MEMORY", 0x32: "CKR_DEVICE_REMOVED",
	0x50: "CKR_FUNCTION_CANCELED", 0x54: "CKR_FUNCTION_NOT_SUPPORTED", 0x62: "CKR_KEY_SIZE_RANGE", 0x63: "CKR_KEY_TYPE_INCONSISTENT",
	0x68: "CKR_KEY_FUNCTION_NOT_PERMITTED", rvMechanism: "CKR_MECHANISM_INVALID", rvMechanismParam: "CKR_MECHANISM_PARAM_INVALID",
	rvPINIncorrect: "CKR_PIN_INCORRECT", rvPINInvalid: "CKR_PIN_INVALID", rvPINLength: "CKR_PIN_LEN_RANGE", rvPINExpired: "CKR_PIN_EXPIRED",
	rvPINLocked: "CKR_PIN_LOCKED", 0xb3: "CKR_SESSION_HANDLE_INVALID", 0xe0: "CKR_TOKEN_NOT_PRESENT", 0xe1: "CKR_TOKEN_NOT_RECOGNIZED",
	0xe2: "CKR_TOKEN_WRITE_PROTECTED", 0x101: "CKR_USER_NOT_LOGGED_IN", 0x102: "CKR_USER_PIN_NOT_INITIALIZED", rvDomainParams: "CKR_DOMAIN_PARAMS_INVALID",
	rvCurveNotSupported: "CKR_CURVE_NOT_SUPPORTED", 0x190: "CKR_CRYPTOKI_NOT_INITIALIZED",
}

func (e *RV) Error() string {
	name := rvNames[e.Value]
	if name == "" {
		name = fmt.Sprintf("return value %#x", e.Value)
	}
	return "C_" + e.Function + ": " + name
}

func isRV(err error, values ...uintptr) bool {
	var rv *RV
	if errors.As(err, &rv) {
		for _, v := range values {
			if rv.Value == v {
				return true
			}
		}
	}
	return false
}

// Module is a library that is loaded and initialized.
type Module struct {
	list *[functions]uintptr
}

// Load loads a library and initializes it. It stays loaded until the process ends.
func Load(path string) (*Module, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	get, err := purego.Dlsym(handle, "C_GetFunctionList")
	if err != nil {
		return nil, fmt.Errorf("%s: it is no PKCS #11 library: %w", path, err)
	}
	var list unsafe.Pointer
	if rv := call(get, unsafe.Pointer(&list)); rv != rvOK || list == nil {
		return nil, &RV{"GetFunctionList", rv}
	}
	if v := (*version)(list); v.major != 2 {
		return nil, fmt.Errorf("%s: PKCS #11 version %d.%d: want 2", path, v.major, v.minor)
	}
	m := &Module{(*[functions]uintptr)(unsafe.Add(list, unsafe.Sizeof(uintptr(0))))}
	args := &initArgs{flags: flagOSLocking}
	if err := m.call("Initialize", fnInitialize, unsafe.Pointer(args)); err != nil && !isRV(err, rvAlreadyInitialized) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

// Close finishes with the library.
func (m *Module) Close() error { return m.call("Finalize", fnFinalize, nil) }

// call calls a C function. Arguments are numbers and pointers; what the pointers point to is pinned while it runs, and
// so is what that points to, by who made it.
func call(fn uintptr, args ...any) uintptr {
	var pin runtime.Pinner
	defer pin.Unpin()
	words := make([]uintptr, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case nil:
		case unsafe.Pointer:
			if a != nil {
				pin.Pin(a)
			}
			words[i] = uintptr(a)
		case uintptr:
			words[i] = a
		case int:
			words[i] = uintptr(a)
		}
	}
	rv, _, _ := purego.SyscallN(fn, words...)
	runtime.KeepAlive(args)
	return rv
}

func (m *Module) call(name string, fn int, args ...any) error {
	if m.list[fn] == 0 {
		return fmt.Errorf("the library has no C_%s", name)
	}
	if rv := call(m.list[fn], args...); rv != rvOK {
		return &RV{name, rv}
	}
	return nil
}

// Token is a token in a slot.
type Token struct {
	Slot                               uint64
	Label, Manufacturer, Model, Serial string
	flags                              ulong
}

// Locked says that the user's PIN is.
func (t *Token) Locked() bool { return t.flags&flagLocked != 0 }

// KeyPad says that the PIN is entered at the token.
func (t *Token) KeyPad() bool { return t.flags&flagKeyPad != 0 }

// LoginRequired says that private keys can be used only after a login.
func (t *Token) LoginRequired() bool { return t.flags&flagLoginRequired != 0 }

// maxSlots bounds what a library can make us look at.
const maxSlots = 1024

// Tokens lists what is in the slots and initialized.
func (m *Module) Tokens() ([]Token, error) {
	slots := make([]ulong, maxSlots)
	n := new(ulong)
	*n = maxSlots
	if err := m.call("GetSlotList", fnGetSlotList, 1, unsafe.Pointer(&slots[0]), unsafe.Pointer(n)); err != nil {
		return nil, err
	}
	if *n > maxSlots {
		return nil, fmt.Errorf("the library tells of %d slots", *n)
	}
	var tokens []Token
	for _, slot := range slots[:*n] {
		info := new(tokenInfo)
		if m.call("GetTokenInfo", fnGetTokenInfo, slot, unsafe.Pointer(info)) != nil || info.flags&flagInitialized == 0 {
			continue // taken out meanwhile, or empty
		}
		tokens = append(tokens, Token{uint64(slot), padded(info.label[:]), padded(info.manufacturer[:]), padded(info.model[:]), padded(info.serial[:]), info.flags})
	}
	return tokens, nil
}

func padded(b []byte) string { return strings.TrimRight(string(b), " \x00") }
