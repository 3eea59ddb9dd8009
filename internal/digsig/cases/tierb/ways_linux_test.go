package tierb

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"midplane/internal/digsig/bpflsm"
)

// gapIf names what should not go through, and does.
func gapIf(s string) string {
	if s == allow {
		return gap
	}
	return s
}

// ways are the cases about roads to execution other than execve of a name.
func (b *bench) ways() {
	b.case_(24, "memfd_create and fexecve", deny, outcome(tries("memfd", "/mnt/prog/static")))
	b.case_(25, "unlinked, by /proc/self/fd", deny, outcome(tries("unlinked", "/mnt/prog/static")))
	cmd := tries("mapfd")
	cmd.ExtraFiles = []*os.File{b.early}
	b.case_(36, "mmap to execute of a descriptor from before", deny, outcome(cmd))
	b.case_(37, "mmap to read, mprotect to execute: unsigned", deny, outcome(tries("mprotect", "/mnt/bad/lib.so")))
	b.case_(37, "mmap to read, mprotect to execute: signed", allow, outcome(tries("mprotect", "/mnt/prog/lib.so")))
	b.case_(38, "READ_IMPLIES_EXEC: unsigned", deny, outcome(tries("personality", "/mnt/bad/lib.so")))
	b.case_(38, "READ_IMPLIES_EXEC: signed", allow, outcome(tries("personality", "/mnt/prog/lib.so")))
	got := outcome(tries("check", "/mnt/bad/hello"))
	if strings.Contains(got, unix.EINVAL.Error()) {
		got = notHas
	}
	b.case_(43, "AT_EXECVE_CHECK of what is unsigned", notHas, got) // Linux 6.14
}

// with runs f under other settings.
func (b *bench) with(change func(), f func()) {
	old := b.settings
	change()
	b.must(b.g.SetPolicy(b.policy(), true))
	f()
	b.settings = old
	b.must(b.g.SetPolicy(b.policy(), true))
}

// memory are the cases about memory that is no file's.
func (b *bench) memory() {
	b.case_(39, "anonymous memory to execute", gap, gapIf(outcome(tries("anonymous"))))
	b.case_(39, "anonymous memory, written, then to execute", gap, gapIf(outcome(tries("anonymous mprotect"))))
	b.case_(39, "private copy of a signed page, written, then to execute", gap, gapIf(outcome(tries("patched", "/mnt/prog/lib.so"))))
	b.with(func() { b.settings.DenyAnonymous = true }, func() {
		b.case_(39, "anonymous memory to execute, with anonymous = deny", deny, outcome(tries("anonymous")))
		b.case_(39, "anonymous memory, written, then to execute, with anonymous = deny", deny, outcome(tries("anonymous mprotect")))
		b.case_(39, "private copy of a signed page, with anonymous = deny", deny, outcome(tries("patched", "/mnt/prog/lib.so")))
		b.run(1, "signed and intact, with anonymous = deny", allow, "/mnt/prog/hello")
	})
	victim := tries("sleep")
	in, err := victim.StdinPipe()
	b.must(err)
	b.must(victim.Start())
	pid := strconv.Itoa(victim.Process.Pid)
	b.case_(40, "ptrace of another process", gap, gapIf(outcome(tries("ptrace", pid))))
	b.case_(40, "/proc/PID/mem of another process", gap, gapIf(outcome(tries("memory", pid))))
	b.with(func() { b.settings.GuardPtrace = true }, func() {
		b.case_(40, "ptrace of another process, with ptrace = deny", deny, outcome(tries("ptrace", pid)))
		b.case_(40, "/proc/PID/mem of another process, with ptrace = deny", deny, outcome(tries("memory", pid)))
	})
	b.must(in.Close())
	b.must(victim.Wait())
}

// scripts are the cases about interpreters.
func (b *bench) scripts() {
	b.run(41, "signed script with a signed interpreter", allow, "/mnt/prog/script")
	b.run(41, "unsigned script with a signed interpreter", deny, "/mnt/bad/script")
	b.run(41, "signed script with an unsigned interpreter", deny, "/mnt/prog/badscript")
	b.case_(42, "shell x.sh, unsigned", gap, gapIf(outcome(program("/mnt/prog/shell", "/mnt/bad/script"))))
	b.case_(42, "shell -c", gap, gapIf(outcome(program("/mnt/prog/shell", "-c", "echo ran"))))
	stdin := program("/mnt/prog/shell")
	stdin.Stdin = strings.NewReader("echo ran\n")
	b.case_(42, "shell, standard input", gap, gapIf(outcome(stdin)))
	b.run(44, "binfmt_misc with the flag F and an unsigned handler", deny, "/mnt/prog/magic")
}

// denials fetches what was denied until there is one about a path.
func (b *bench) denial(path string) string {
	d, err := b.g.Denials()
	b.must(err)
	defer d.Close()
	d.SetDeadline(time.Now().Add(30 * time.Second))
	for {
		n, err := d.Next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return "nobody tried"
		case err != nil:
			return err.Error()
		case n.Path == path && n.Mode == bpflsm.Enforce:
			return deny
		}
	}
}

// kernel are the cases about the kernel's own helpers, its modules, and root against the gate.
func (b *bench) kernel() {
	helper := func(number int, what, setting string, ask func()) {
		old := b.read(setting)
		value := "/mnt/bad/marker"
		if strings.HasSuffix(setting, "core_pattern") {
			value = "|" + value
		}
		b.must(os.WriteFile(setting, []byte(value), 0))
		ask()
		got := b.denial("/mnt/bad/marker")
		if _, err := os.Stat("/dev/shm/marker"); err == nil {
			got = "the helper ran"
		}
		b.must(os.WriteFile(setting, old, 0))
		b.case_(number, what, deny, got)
	}
	helper(45, "unsigned program of core_pattern", "/proc/sys/kernel/core_pattern", func() {
		crash := tries("crash")
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
		_ = crash.Run()
	})
	helper(45, "unsigned program of the sysctl modprobe", "/proc/sys/kernel/modprobe", func() { _ = tries("modprobe").Run() })

	b.case_(46, "module, unsigned", deny, outcome(tries("module", "/mnt/bad/module.ko")))
	b.case_(46, "module from memory (init_module)", deny, outcome(tries("module from memory", "/mnt/prog/dummy.ko")))
	b.case_(46, "module, signed", allow, outcome(tries("module", "/mnt/prog/dummy.ko")))

	b.case_(52, "root detaches links by bpf(2)", deny, outcome(tries("detach")))
	got := deny
	for _, dir := range []string{"links-1", "maps"} {
		entries, err := os.ReadDir(bpflsm.DefaultPins + "/" + dir)
		b.must(err)
		if len(entries) == 0 {
			got = "no pins"
		}
	}
	b.case_(52, "and the pins are there (bpflsm.TestIntegrationGate tries more)", deny, got)
	b.case_(53, "what ran before (this very test)", gap, gap)
}

// load are the cases about many, big and strange files, and about who is no longer there.
func (b *bench) load() {
	var ran, denied, other atomic.Int64
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for n := range 10 {
				path, want, counter := "/mnt/prog/hello32", allow, &ran
				if (i+n)%2 == 0 {
					path, want, counter = "/mnt/bad/hello", deny, &denied
				}
				if outcome(program(path)) == want {
					counter.Add(1)
				} else {
					other.Add(1)
				}
			}
		})
	}
	group.Wait()
	got := "all decided"
	if ran.Load() != 40 || denied.Load() != 40 || other.Load() != 0 {
		got = "ran " + strconv.FormatInt(ran.Load(), 10) + ", denied " + strconv.FormatInt(denied.Load(), 10)
	}
	b.case_(47, "80 executions, 8 at the same time", "all decided", got)

	// Nobody fetches denials, and the ring has room for fewer than this.
	for range 3200 {
		_, _ = unix.Mmap(int(b.early.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	}
	st, err := b.g.Status()
	b.must(err)
	got = "no deadlock"
	if st.Lost == 0 || outcome(program("/mnt/bad/hello")) != deny || outcome(program("/mnt/prog/hello32")) != allow {
		got = "the ring's end changed verdicts, or was not reached"
	}
	b.case_(50, "more denials than anybody fetches", "no deadlock", got)
	b.case_(51, "verdicts ask no process, so no storm of others can stop them", "no deadlock", got)

	many := make([]bpflsm.Grant, 1<<10)
	for i := range many {
		many[i] = bpflsm.Grant{Digest: bpflsm.Digest{Kind: bpflsm.Verity, Sum: [32]byte{byte(i), byte(i >> 8), byte(i >> 16), 9}}}
	}
	got = "old policy"
	if _, err := b.g.Replace(many); err == nil || outcome(program("/mnt/prog/hello32")) != allow || outcome(program("/mnt/bad/hello")) != deny {
		got = "another policy"
	}
	b.case_(49, "an update that fails", "old policy", got)

	big := "/dev/shm/big"
	b.write(big, b.read("/mnt/bad/hello"))
	b.must(os.Truncate(big, 10<<30))
	b.run(54, "10 GB of holes that begin as an ELF file", deny, big)
	b.write("/dev/shm/empty", nil)
	b.run(54, "a file without content", deny, "/dev/shm/empty")
	b.must(unix.Mkfifo("/dev/shm/fifo", 0o755))
	b.case_(54, "a FIFO", "refused by the kernel", accessDenied("/dev/shm/fifo"))
	b.case_(54, "a device", "refused by the kernel", accessDenied("/dev/null"))

	b.must(b.g.Close())
	got = "unchanged"
	if outcome(program("/mnt/bad/hello")) != deny || outcome(program("/mnt/prog/hello32")) != allow {
		got = "changed"
	}
	b.case_(48, "no process has the gate open (bpflsm.TestIntegrationGate kills one)", "unchanged", got)
}

func accessDenied(path string) string {
	if err := exec.Command(path).Run(); errors.Is(err, unix.EACCES) {
		return "refused by the kernel"
	} else if err != nil {
		return err.Error()
	}
	return allow
}
