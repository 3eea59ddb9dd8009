package archtest

// module is this module's path; packages below are written without it.
const module = "midplane"

// cores lists the packages that are pure, and what of this module each may import. A core has no goroutine, channel,
// select, clock, randomness, socket, logger or file, so that the simulator can run any number of them on one thread
// and replay what they did. The order is from the leaves up: nothing imports what stands below it.
var cores = []core{
	{"internal/mono", nil},
	{"internal/timer", imports("internal/mono")},
	{"internal/fib/rtnl", nil},
	{"internal/mountinfo", nil},
	{"internal/fib/flowhash", nil},
	{"internal/tipc/wire", nil},
	{"internal/tipc/buf", imports("internal/mono", "internal/tipc/wire")},
	{"internal/tipc/monitor", imports("internal/mono", "internal/tipc/wire")},
	{"internal/tipc/msg", imports("internal/tipc/wire", "internal/tipc/buf")},
	{"internal/tipc/link", imports("internal/mono", "internal/tipc/wire", "internal/tipc/buf", "internal/tipc/msg", "internal/tipc/monitor")},
	{"internal/tipc/discover", imports("internal/mono", "internal/tipc/wire", "internal/tipc/buf")},
	{"internal/tipc/names", imports("internal/mono", "internal/timer", "internal/tipc/wire", "internal/tipc/buf")},
	{"internal/tipc/node", imports("internal/mono", "internal/timer", "internal/tipc/wire", "internal/tipc/buf", "internal/tipc/msg", "internal/tipc/monitor", "internal/tipc/link", "internal/tipc/discover")},
	{"internal/tipc/socket", imports("internal/mono", "internal/timer", "internal/tipc/wire", "internal/tipc/buf", "internal/tipc/msg", "internal/tipc/names", "internal/tipc/sockif")},
	{"internal/tipc/topsrv", imports("internal/mono", "internal/tipc/wire", "internal/tipc/buf", "internal/tipc/names", "internal/tipc/socket", "internal/tipc/sockif")},
	{"internal/tipc/stack", imports("internal/mono", "internal/tipc/wire", "internal/tipc/buf", "internal/tipc/msg", "internal/tipc/monitor", "internal/tipc/link",
		"internal/tipc/discover", "internal/tipc/names", "internal/tipc/node", "internal/tipc/topsrv", "internal/tipc/socket", "internal/tipc/sockif")},
	{"internal/fib/image", nil},
	{"internal/fib/trie", imports("internal/fib/image")},
	{"internal/fib/kernel/neigh", imports("internal/mono")},
	{"internal/fib/kernel/plan", nil},
	{"internal/fib/mrt", nil},
	{"internal/fib/diff", nil},
	{"internal/digsig/gate", imports("internal/mono")},
	{"internal/digsig/audit/chain", nil},
	{"internal/digsig/audit/learnt", imports("internal/digsig/audit/chain")},
	{"internal/aem/hist", nil},
	{"internal/aem/wheel", imports("internal/mono")},
	{"internal/aem/sched", imports("internal/mono")},
	{"internal/aem/ctl", imports("internal/mono")},
	{"internal/digsig/text", nil},
	{"internal/digsig/envelope", nil},
	{"internal/digsig/elfsig", nil},
	{"internal/digsig/trust", imports("internal/digsig/text", "internal/digsig/envelope")},
	{"internal/digsig/revoke", imports("internal/digsig/text", "internal/digsig/envelope")},
	{"internal/digsig/policy", imports("internal/digsig/text", "internal/digsig/envelope")},
	{"internal/digsig/manifest", imports("internal/digsig/text", "internal/digsig/envelope")},
	{"internal/digsig/gaps", nil},
	{"internal/digsig/verity", nil},
}

// types are packages without code of their own, which cores may import like leaves.
var types = []string{"internal/tipc/sockif"}

type core struct {
	path   string
	within []string // packages of this module that it may import
}

func imports(paths ...string) []string { return paths }

// coreStd is what cores may import of the standard library: nothing in it waits, reads a clock, draws or talks.
// Package time is for durations; the functions of it that read the clock are forbidden one by one. Package syscall is
// for error numbers, and sync for the buffer pool only; their uses are checked too.
var coreStd = []string{
	"bytes", "cmp", "container/heap", "container/list", "crypto/aes", "crypto/cipher", "crypto/subtle", "encoding/binary", "encoding/hex", "errors", "fmt",
	"hash/crc32", "hash/fnv", "io", "iter", "maps", "math", "math/bits", "net/netip", "slices", "sort", "strconv", "strings", "syscall", "time", "unsafe",
}

// exceptions are what one core may use beyond the rules, each with its reason.
var exceptions = map[string][]string{
	"internal/mono":      {"time.Now", "time.Since"},                   // Now is where drivers get the time from
	"internal/tipc/buf":  {"sync", "sync.Pool"},                        // a pool keeps no state that a program can see
	"internal/fib/image": {"sync/atomic"},                              // an image is memory that others read while it is written
	"internal/fib/mrt":   {"bufio", "compress/bzip2", "compress/gzip"}, // octets in, octets out
	// Verifying is arithmetic; nothing of these packages that draws is used by it.
	"internal/digsig/envelope":    {"crypto", "crypto/ecdsa", "crypto/ed25519", "crypto/elliptic", "crypto/sha256", "math/big", "unicode/utf8"},
	"internal/digsig/text":        {"unicode/utf8"},
	"internal/digsig/verity":      {"crypto/sha256", "crypto/sha512", "hash"},
	"internal/digsig/audit/chain": {"crypto/sha256", "encoding/json"},
	"internal/digsig/trust":       {"encoding/base64"},
}

// forbidden are the qualified names that no core uses.
var forbidden = []string{
	"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.AfterFunc", "time.NewTimer", "time.NewTicker", "time.Tick",
	"fmt.Print", "fmt.Printf", "fmt.Println", "syscall.Syscall", "syscall.RawSyscall",
}

// systemCalls are the packages that may call the kernel past the standard library.
var systemCalls = []string{
	"internal/sys",
	"internal/tipc/bearer",
	"internal/lab",
	"internal/fib/enter",
	"internal/fib/kernel",
	"internal/fib/setfib",
	"internal/digsig/gaps/probe",
	"internal/digsig/verity/enrol",
	"internal/digsig/bpflsm",
	"internal/digsig/fanotify",
	"internal/digsig/lease",
	"internal/digsig/enforcer",
	"internal/aem/loop",
	"internal/aem/uring",
	"internal/aem/source",
}

// onlyFor lists what only the named packages may import (a trailing /… is every package below).
var onlyFor = []struct {
	what string
	who  []string
	why  string
}{
	{"golang.org/x/sys/unix", systemCalls, "system calls live in few places"},
	{"github.com/spf13/cobra", []string{"internal/cli/…"}, "only the command line pays for it"},
	{"github.com/pelletier/go-toml/v2", []string{"internal/daemon"}, "only the daemon reads configuration"},
	{"github.com/osrg/gobgp/v4/…", []string{"internal/fib/bgp", "internal/fib/deps"}, "who wants BGP pays for it"},
	{"github.com/ebitengine/purego", []string{"internal/digsig/pkcs11/cryptoki"}, "it makes a program dynamically linked"},
	{module + "/internal/digsig/pkcs11/cryptoki", []string{"cmd/midplane-pkcs11"}, "it makes a program dynamically linked"},
	{"github.com/ProtonMail/go-crypto/…", []string{"internal/digsig/bsign"}, "OpenPGP is of the past"},
	{module + "/internal/digsig/bsign", []string{"internal/cli/…"}, "bsign's signatures are for moving away from, never for letting run"},
	{"golang.org/x/crypto/…", []string{"internal/digsig/keyfile", "internal/digsig/agent"}, "for private keys only"},
	{"net/http", []string{"internal/api/…", "internal/daemon", "internal/web/…", "aem/aemhttp", "examples/…"}, "only the control socket talks it"},
	{module + "/internal/cli", []string{"cmd/midplane"}, "the command line is the top"},
	{module + "/internal/daemon", []string{"internal/cli/…", "internal/dev"}, "the daemon is a program, not a library"},
	{module + "/internal/dev", []string{"internal/cli/…"}, "the demonstration is a program, not a library"},
	{module + "/internal/lab", []string{"internal/digsig/dpkg/debiantest"}, "only tests use the lab"},
	{module + "/internal/lab/proto", []string{"internal/lab/…"}, "the lab's own"},
	{module + "/internal/sim", nil, "only tests use the simulator"},
	{module + "/internal/interop", nil, "only tests"},
	{module + "/internal/fib/fibtest", nil, "only tests (and bench, which is a module of its own)"},
	{"github.com/google/go-cmp/cmp", nil, "only tests compare with it"},
	{"pgregory.net/rapid", nil, "only tests draw with it"},
	{"golang.org/x/net/nettest", nil, "only tests use it"},
	{"testing", []string{"internal/lab/…", "…test"}, "only helpers of tests know tests"},
	{"C", nil, "no cgo"},
}

// public lists the packages that a program embeds. What each brings along, directly or through others, is of this
// module, the standard library, or listed here.
var public = map[string][]string{
	"tipc":   {"golang.org/x/sys/unix", "golang.org/x/net/ipv4", "golang.org/x/net/ipv6"},
	"fib":    {"golang.org/x/sys/unix"},
	"aem":    {"golang.org/x/sys/unix"},
	"digsig": nil,
}

// publicNever is what no embedding program shall find linked in.
var publicNever = []string{module + "/internal/cli", module + "/internal/daemon", module + "/internal/web", "net/http", "testing", "flag"}

// maxLines bounds a source file: one file is one thing.
const maxLines = 1000
