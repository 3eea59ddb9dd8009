// Package gaps decides what of DigSig's guarantees a machine can be given: which tier of enforcement its kernel carries,
// and which of the known ways around remain open there, each with how to close it.
//
// The package is pure: [Host] is what package probe read from the running kernel, and the same Host gives the same
// [Report].
package gaps

import (
	"fmt"
	"slices"
	"strings"
)

// Tier is how far enforcement reaches. A tier has what those before it have.
type Tier uint8

// The tiers.
const (
	TierNone     Tier = iota // nothing can be enforced
	TierFanotify             // permission events answered by the enforcer
	TierVerity               // and files made immutable by fs-verity
	TierBPF                  // and the decision in the kernel (BPF LSM), for every way to run code from a file
)

var tierNames = [...]string{"none", "fanotify", "fs-verity", "bpf-lsm"}

// String names the tier: none, fanotify, fs-verity or bpf-lsm.
func (t Tier) String() string {
	if int(t) < len(tierNames) {
		return tierNames[t]
	}
	return fmt.Sprintf("tier(%d)", uint8(t))
}

// MarshalText is String.
func (t Tier) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (t *Tier) UnmarshalText(b []byte) error {
	i := slices.Index(tierNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("tier %q: want one of %s", b, strings.Join(tierNames[:], ", "))
	}
	*t = Tier(i)
	return nil
}

// Kernel is a version of Linux, as 6.12.
type Kernel struct{ Major, Minor int }

// AtLeast says whether k is major.minor or later.
func (k Kernel) AtLeast(major, minor int) bool {
	return k.Major > major || k.Major == major && k.Minor >= minor
}

// ParseKernel reads the beginning of what uname -r prints.
func ParseKernel(release string) (Kernel, error) {
	var k Kernel
	if n, _ := fmt.Sscanf(release, "%d.%d", &k.Major, &k.Minor); n != 2 || k.Major < 0 || k.Minor < 0 {
		return Kernel{}, fmt.Errorf("kernel release %q does not begin with two numbers", release)
	}
	return k, nil
}

// String is the version as two numbers.
func (k Kernel) String() string { return fmt.Sprintf("%d.%d", k.Major, k.Minor) }

// Absent is the value of a setting that this kernel does not have.
const Absent = -1

// Host is what was found on a machine. The zero value is a kernel that has nothing at all, but the settings that have
// [Absent] must be set to it where they are absent.
type Host struct {
	Release string   `json:"release"` // uname -r
	Kernel  Kernel   `json:"-"`       // of Release
	LSMs    []string `json:"lsms"`    // /sys/kernel/security/lsm, in order

	Fanotify FanotifyFeatures `json:"fanotify"`
	BPF      BPFFeatures      `json:"bpf"`

	FileSystems []FileSystem `json:"file_systems"` // those that can hold programs

	MemfdNoexec    int    `json:"memfd_noexec"`    // sysctl vm.memfd_noexec: 0, 1, 2; Absent before 6.3
	UserNamespaces int    `json:"user_namespaces"` // sysctl user.max_user_namespaces, 0 also when others forbid them to users; Absent without CONFIG_USER_NS
	Yama           int    `json:"yama"`            // sysctl kernel.yama.ptrace_scope: 0 to 3; Absent without Yama
	Lockdown       string `json:"lockdown"`        // none, integrity, confidentiality; empty without the lockdown LSM
	Modules        bool   `json:"modules"`         // the kernel can load modules, and modules_disabled is not set
	ModuleSigs     bool   `json:"module_sigs"`     // module.sig_enforce
	Kexec          bool   `json:"kexec"`           // another kernel can be loaded (sysctl kernel.kexec_load_disabled is 0)
}

// FanotifyFeatures says what fanotify has.
type FanotifyFeatures struct {
	Permission bool   `json:"permission"` // FAN_OPEN_EXEC_PERM for this process (CONFIG_FANOTIFY_ACCESS_PERMISSIONS, CAP_SYS_ADMIN; 5.0)
	FileSystem bool   `json:"filesystem"` // FAN_MARK_FILESYSTEM (4.20)
	Unlimited  bool   `json:"unlimited"`  // FAN_UNLIMITED_QUEUE, FAN_UNLIMITED_MARKS
	Evictable  bool   `json:"evictable"`  // FAN_MARK_EVICTABLE (5.19)
	PIDFD      bool   `json:"pidfd"`      // FAN_REPORT_PIDFD (5.15)
	Err        string `json:"err,omitempty"`
}

// BPFFeatures says what BPF LSM needs and has.
type BPFFeatures struct {
	Active bool   `json:"active"` // bpf is in the list of active LSMs
	BTF    bool   `json:"btf"`    // /sys/kernel/btf/vmlinux
	Digest bool   `json:"digest"` // the kfunc bpf_get_fsverity_digest (6.8)
	Load   bool   `json:"load"`   // this process may load such programs
	Err    string `json:"err,omitempty"`
}

// usable says whether programs of tier B run here; otherwise why not, and the cure.
func (b BPFFeatures) usable() (ok bool, lack, cure string) {
	switch {
	case !b.Active:
		return false, "BPF LSM is not active", "boot with lsm=…,bpf (the list of /sys/kernel/security/lsm and bpf; needs CONFIG_BPF_LSM=y)"
	case !b.BTF:
		return false, "the kernel has no type information (BTF)", "a kernel with CONFIG_DEBUG_INFO_BTF=y"
	case !b.Digest:
		return false, "the kernel does not tell BPF programs fs-verity digests", "Linux 6.8 or later with CONFIG_FS_VERITY=y"
	case !b.Load:
		return false, "BPF LSM programs cannot be loaded: " + b.Err, "CAP_BPF and CAP_SYS_ADMIN, and no lockdown=confidentiality"
	}
	return true, "", ""
}

// FileSystem is one mounted file system (a super block, not each of its mounts).
type FileSystem struct {
	Mount  string `json:"mount"` // one mount point of it
	Type   string `json:"type"`
	Verity bool   `json:"verity"`         // fs-verity can be enabled on its files
	Lack   string `json:"lack,omitempty"` // what lacks for fs-verity, in words
	Cure   string `json:"cure,omitempty"`
	NoExec bool   `json:"noexec"` // all its known mounts are noexec
}

// Settings are the choices of the policy that open or close gaps.
type Settings struct {
	Highest       Tier // the highest tier wanted; TierNone: the highest there is
	DenyAnonymous bool // tier B: memory without file never becomes executable (just-in-time compilers end)
	Modules       bool // tier B: modules and kernels to boot need a signature of ours
	GuardBPF      bool // tier B: nobody else may write the maps or take the programs away
	GuardPtrace   bool // tier B: no process writes the memory of another
}

// Gap is a way around the guarantees that is open.
type Gap struct {
	Cases []int  `json:"cases"` // as docs/digsig-cases.md numbers them
	Text  string `json:"text"`
	Cure  string `json:"cure"`
}

// Report is what a machine can be given.
type Report struct {
	Tier Tier     `json:"tier"`
	Why  []string `json:"why"` // why it is not a higher one, and the cure; empty at the highest
	Gaps []Gap    `json:"gaps"`
}

// Open says whether a case is among the gaps.
func (r Report) Open(number int) bool {
	return slices.ContainsFunc(r.Gaps, func(g Gap) bool { return slices.Contains(g.Cases, number) })
}
