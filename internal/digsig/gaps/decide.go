package gaps

import (
	"fmt"
	"strings"
)

// Decide chooses the tier for a machine and lists what remains open there.
func Decide(h Host, s Settings) Report {
	r := choose(h, s)
	for _, rule := range rules {
		if g, open := rule(h, s, r.Tier); open {
			r.Gaps = append(r.Gaps, g)
		}
	}
	return r
}

// choose finds the highest tier that h carries and s wants.
func choose(h Host, s Settings) Report {
	highest := s.Highest
	if highest == TierNone {
		highest = TierBPF
	}
	var r Report
	lacks := func(t Tier, lack, cure string) {
		r.Why = append(r.Why, fmt.Sprintf("no tier %v: %s; cure: %s", t, lack, cure))
	}
	fanotify := h.Fanotify.Permission && h.Fanotify.FileSystem
	if fanotify {
		r.Tier = TierFanotify
	} else {
		lack, cure := "fanotify has no permission events for whole file systems", "Linux 5.0 or later with CONFIG_FANOTIFY_ACCESS_PERMISSIONS=y, and CAP_SYS_ADMIN"
		if h.Fanotify.Err != "" {
			lack += " (" + h.Fanotify.Err + ")"
		}
		lacks(TierFanotify, lack, cure)
	}
	switch {
	case highest < TierVerity:
		lacks(TierVerity, "the policy does not want it", "the configuration with tier auto")
	case !anyVerity(h):
		lacks(TierVerity, "no file system here has fs-verity", verityCure(h))
	case fanotify:
		r.Tier = TierVerity
	}
	switch ok, lack, cure := h.BPF.usable(); {
	case highest < TierBPF:
		lacks(TierBPF, "the policy does not want it", "the configuration with tier auto")
	case !ok:
		lacks(TierBPF, lack, cure)
	default:
		r.Tier = TierBPF
	}
	return r
}

func anyVerity(h Host) bool {
	for _, f := range h.FileSystems {
		if f.Verity {
			return true
		}
	}
	return false
}

func verityCure(h Host) string {
	for _, f := range h.FileSystems {
		if f.Cure != "" {
			return f.Cure
		}
	}
	return "programs on ext4, f2fs or btrfs, and a kernel with CONFIG_FS_VERITY=y"
}

// rule finds one gap.
type rule func(h Host, s Settings, t Tier) (Gap, bool)

const bpfToo = ", or tier bpf-lsm"

// rules are in the order in which an administrator would want to read them: the widest gap first.
var rules = []rule{
	nothing, queue, memfd, namespaces, mounts, mappings, anonymous, foreignMemory, immutable, unadmitted, modules, kexec,
	interpreters, execveCheck, root, boot,
}

func nothing(_ Host, _ Settings, t Tier) (Gap, bool) {
	all := make([]int, 0, lastCase)
	for n := 2; n <= lastCase; n++ {
		all = append(all, n)
	}
	return Gap{all, "nothing is enforced: signatures are checked by `verify` only", "see why there is no tier fanotify"}, t == TierNone
}

// lastCase is the highest number in the table of hostile cases.
const lastCase = 54

func queue(h Host, _ Settings, t Tier) (Gap, bool) {
	return Gap{[]int{47}, "the queue of permission events is bounded: the kernel lets pass what does not fit", "CAP_SYS_ADMIN for the enforcer (FAN_UNLIMITED_QUEUE)"},
		(t == TierFanotify || t == TierVerity) && !h.Fanotify.Unlimited
}

func memfd(h Host, _ Settings, t Tier) (Gap, bool) {
	cure := "sysctl vm.memfd_noexec=2 (who executes a memfd, runc among them, then fails)" + bpfToo
	if h.MemfdNoexec == Absent {
		cure = "Linux 6.3 or later and sysctl vm.memfd_noexec=2" + bpfToo
	}
	return Gap{[]int{24}, "a program in memory (memfd_create) runs unverified", cure}, between(t) && h.MemfdNoexec != 2
}

// between says that something is enforced, by permission events only.
func between(t Tier) bool { return t == TierFanotify || t == TierVerity }

func namespaces(h Host, _ Settings, t Tier) (Gap, bool) {
	return Gap{[]int{26}, "any user runs anything from a tmpfs in a user and mount namespace of their own", "sysctl user.max_user_namespaces=0 (ends rootless containers and sandboxes of browsers)" + bpfToo},
		between(t) && h.UserNamespaces > 0
}

func mounts(_ Host, _ Settings, t Tier) (Gap, bool) {
	return Gap{[]int{27}, "a file system that is mounted in another mount namespace and not in the enforcer's runs unverified", "tier bpf-lsm"}, between(t)
}

func mappings(_ Host, _ Settings, t Tier) (Gap, bool) {
	return Gap{[]int{36, 37, 38}, "a file that was opened as data is made executable later: by mmap of a descriptor from before, by mprotect, by READ_IMPLIES_EXEC", "tier bpf-lsm"}, between(t)
}

func anonymous(_ Host, s Settings, t Tier) (Gap, bool) {
	cure := "tier bpf-lsm with `enforce --kernel anonymous`"
	if t == TierBPF {
		cure = "`enforce --kernel anonymous` (ends just-in-time compilers: browsers, Java, node)"
	}
	return Gap{[]int{39}, "code that a signed program reads into anonymous memory runs unverified", cure}, t > TierNone && (t < TierBPF || !s.DenyAnonymous)
}

func foreignMemory(h Host, s Settings, t Tier) (Gap, bool) {
	cure := "sysctl kernel.yama.ptrace_scope=3 (no debugger then works)"
	switch {
	case t == TierBPF:
		cure = "`enforce --kernel ptrace`"
	case h.Yama == Absent:
		cure = "the Yama LSM with ptrace_scope=3" + bpfToo
	}
	return Gap{[]int{40}, "a process writes code into another by ptrace or /proc/PID/mem", cure},
		t > TierNone && h.Yama != 3 && (t < TierBPF || !s.GuardPtrace)
}

// immutable is about bytes that change under a verdict: fs-verity forbids it where there is any.
func immutable(h Host, _ Settings, t Tier) (Gap, bool) {
	if t == TierFanotify {
		return Gap{[]int{35}, "a library that is in use can be overwritten, and who maps it sees the new bytes (the write is reported)", "`digsig enrol` on file systems with fs-verity"}, true
	}
	var bad, cures []string
	for _, f := range h.FileSystems {
		if f.Verity || f.NoExec {
			continue
		}
		bad = append(bad, f.Mount+" ("+f.Type+")")
		if f.Cure != "" {
			cures = append(cures, f.Cure)
		}
	}
	if len(cures) == 0 {
		cures = []string{"noexec mounts, or ext4, f2fs or btrfs with fs-verity in their place"}
	}
	return Gap{[]int{35}, "a library in use can be overwritten on file systems without fs-verity: " + strings.Join(bad, ", "), strings.Join(cures, "; ")},
		t > TierNone && len(bad) > 0
}

func unadmitted(h Host, _ Settings, t Tier) (Gap, bool) {
	return Gap{[]int{1}, "signed files without fs-verity are denied, as nobody verifies them on demand", "fanotify (see why there is no tier fanotify), or `digsig enrol`"},
		t == TierBPF && !(h.Fanotify.Permission && h.Fanotify.FileSystem)
}

func modules(h Host, s Settings, t Tier) (Gap, bool) {
	closed := !h.Modules || h.ModuleSigs || locked(h) || t == TierBPF && s.Modules
	cure := "boot with module.sig_enforce=1 or lockdown=integrity, or sysctl kernel.modules_disabled=1"
	if t == TierBPF {
		cure = "`enforce --kernel modules`, or " + cure
	} else {
		cure += bpfToo
	}
	return Gap{[]int{46}, "root loads a kernel module that nobody signed", cure}, t > TierNone && !closed
}

func locked(h Host) bool { return h.Lockdown == "integrity" || h.Lockdown == "confidentiality" }

func kexec(h Host, s Settings, t Tier) (Gap, bool) {
	closed := !h.Kexec || locked(h) || t == TierBPF && s.Modules
	return Gap{[]int{52}, "root starts another kernel by kexec", "sysctl kernel.kexec_load_disabled=1, or boot with lockdown=integrity"}, t > TierNone && !closed
}

func interpreters(_ Host, _ Settings, t Tier) (Gap, bool) {
	return Gap{[]int{42}, "what an interpreter is told by -c or standard input runs; a script file that it opens is checked by the open rule of tier fanotify only",
		"signatures for interpreters with the role interp only (they then run by #! alone)"}, t > TierNone
}

func execveCheck(h Host, _ Settings, t Tier) (Gap, bool) {
	return Gap{[]int{43}, "interpreters cannot ask whether a script may run (AT_EXECVE_CHECK)", "Linux 6.14 or later"}, t > TierNone && !h.Kernel.AtLeast(6, 14)
}

func root(h Host, s Settings, t Tier) (Gap, bool) {
	switch {
	case t == TierNone:
		return Gap{}, false
	case t < TierBPF:
		return Gap{[]int{52}, "root can end the enforcement: it is out of scope in this tier", "tier bpf-lsm with lockdown=integrity"}, true
	case !s.GuardBPF:
		return Gap{[]int{52}, "root can write the maps and remove the programs by bpf(2)", "`enforce --kernel guard`"}, true
	}
	return Gap{[]int{52}, "root can write the kernel's memory and disks under their file systems", "boot with lockdown=integrity, and no raw access to disks"}, !locked(h)
}

func boot(_ Host, _ Settings, t Tier) (Gap, bool) {
	return Gap{[]int{53}, "what runs before the enforcer starts at boot is not checked (it is listed when the enforcer starts)",
		"a signed initramfs and kernel (Secure Boot); enforcement from the initramfs"}, t > TierNone
}
