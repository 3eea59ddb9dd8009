package enforcer

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"midplane/digsig"
	"midplane/internal/digsig/audit"
	"midplane/internal/digsig/bpflsm"
	"midplane/internal/digsig/gate"
)

// Defaults.
const (
	DefaultSocket   = "/run/midplane/digsig.sock"
	DefaultGuardian = "/run/midplane/digsig-guardian.sock"
	DefaultAuditLog = "/var/log/midplane/digsig.log"
	DefaultWatchdog = 10 * time.Second

	maxWatchdog = 20 * time.Second // the kernel breaks a lease by itself after 45 s
)

// Config says what is enforced and how. The zero value is a server: every local file system, the store and paths that
// the package names, the policy's mode.
type Config struct {
	Dir      string        // of the store; empty: digsig.DefaultDir
	StateDir string        // what is remembered; empty: digsig.DefaultStateDir
	Socket   string        // of control, for root only; empty: DefaultSocket
	Guardian string        // socket of the guardian, used when something listens there; empty: DefaultGuardian
	Audit    audit.Config  // Path empty: DefaultAuditLog
	Mounts   []string      // watch only the file systems of these paths; none: every local one, and new ones as they come
	Mode     string        // enforce, permissive or learn; empty: the policy's
	Gate     gate.Config   // zero members take the values of gate.Default
	Watchdog time.Duration // how long the worker may be silent before it is replaced, 100 ms to 20 s; 0: DefaultWatchdog
	NoOpen   bool          // executions only: libraries are not checked
	Remote   bool          // verify on file systems that can change unseen (FUSE, NFS), instead of denying there
	Allowed  bool          // log what is allowed too (what has a mark is never seen)
	Force    bool          // start although what runs now would be denied
	Tier     string        // the highest tier wanted: TierAuto, TierFanotify, TierVerity or TierBPF; empty: TierAuto
	Enrolled []string      // directories with files that have fs-verity, known from the start; none: /usr and /opt
	Kernel   []string      // what tier bpf-lsm forbids besides: anonymous, modules, guard, ptrace (as in bpflsm.Policy)
	Keep     bool          // the kernel goes on deciding, in tier bpf-lsm, after an orderly end
	Owner    int           // a process with which the enforcer ends, whoever supervises then: for tests; 0: none

	Logger *slog.Logger `json:"-"` // of the supervisor; nil: nothing
}

// Tiers that a Config can want. Auto takes the highest that the kernel carries, TierBPF fails where there is no such.
const (
	TierAuto     = "auto"
	TierFanotify = "fanotify"
	TierVerity   = "verity"
	TierBPF      = "bpf"
)

// kernel is the policy of tier bpf-lsm but for its mode.
func (c *Config) kernel() (p bpflsm.Policy) {
	for _, k := range c.Kernel {
		if on := kernelFlag(&p, k); on != nil {
			*on = true
		}
	}
	return p
}

func kernelFlag(p *bpflsm.Policy, name string) *bool {
	return map[string]*bool{"anonymous": &p.Anonymous, "modules": &p.Modules, "guard": &p.Guard, "ptrace": &p.Ptrace}[name]
}

// withDefaults fills in what is not set and checks the rest.
func (c Config) withDefaults() (Config, error) {
	for _, s := range []struct {
		v *string
		d string
	}{{&c.Dir, digsig.DefaultDir}, {&c.StateDir, digsig.DefaultStateDir}, {&c.Socket, DefaultSocket}, {&c.Guardian, DefaultGuardian}, {&c.Audit.Path, DefaultAuditLog}} {
		if *s.v == "" {
			*s.v = s.d
		}
		abs, err := filepath.Abs(*s.v)
		if err != nil {
			return c, fmt.Errorf("enforcer: %q: %w", *s.v, err)
		}
		*s.v = abs
	}
	d := gate.Default()
	g := &c.Gate
	fill(&g.MaxEntries, d.MaxEntries)
	fill(&g.MaxPending, d.MaxPending)
	fill(&g.Jobs, d.Jobs)
	fill(&g.PerDevice, min(d.PerDevice, g.Jobs))
	fill(&g.Big, d.Big)
	fill(&g.BigJobs, min(d.BigJobs, g.Jobs))
	fill(&g.Patience, d.Patience)
	fill(&g.Yield, d.Yield)
	fill(&g.Grace, d.Grace)
	fill(&g.Recent, d.Recent)
	fill(&c.Watchdog, DefaultWatchdog)
	fill(&c.Tier, TierAuto)
	if !slices.Contains([]string{TierAuto, TierFanotify, TierVerity, TierBPF}, c.Tier) {
		return c, fmt.Errorf("enforcer: Tier is %q, want %s, %s, %s or %s", c.Tier, TierAuto, TierFanotify, TierVerity, TierBPF)
	}
	for _, k := range c.Kernel {
		if kernelFlag(new(bpflsm.Policy), k) == nil {
			return c, fmt.Errorf("enforcer: Kernel has %q, want anonymous, modules, guard or ptrace", k)
		}
	}
	g.NoOpen, g.Unpinned = c.NoOpen, c.Remote
	if err := g.Validate(); err != nil {
		return c, err
	}
	if c.Watchdog < 100*time.Millisecond || c.Watchdog > maxWatchdog {
		return c, fmt.Errorf("enforcer: Watchdog is %v, want 100ms to %v", c.Watchdog, maxWatchdog)
	}
	if c.Mode != "" {
		if _, err := digsig.ParseMode(c.Mode); err != nil {
			return c, fmt.Errorf("enforcer: %w", err)
		}
	}
	if len(c.Socket) > 107 {
		return c, fmt.Errorf("enforcer: Socket is %d octets, want at most 107", len(c.Socket))
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return c, nil
}

func fill[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// files says how many descriptors a process of the enforcer may need.
func (c *Config) files() uint64 { return uint64(c.Gate.MaxEntries + 2*c.Gate.MaxPending + 1024) }

// BreakGlass reads the kernel's command line: midplane.digsig=off enforces nothing, midplane.digsig=permissive allows
// everything and logs. It is the way back in when a policy has locked everyone out; who may change the command line may
// also boot another system. The last such word counts; anything else but enforce is an error, and enforces.
func BreakGlass(cmdline string) (mode string, err error) {
	for _, w := range strings.Fields(cmdline) {
		v, ok := strings.CutPrefix(w, "midplane.digsig=")
		if !ok {
			continue
		}
		switch v {
		case "off", "permissive":
			mode, err = v, nil
		case "enforce":
			mode, err = "", nil
		default:
			mode, err = "", errors.New("kernel command line: midplane.digsig="+v+": want off, permissive or enforce")
		}
	}
	return mode, err
}
