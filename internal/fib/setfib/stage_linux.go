package setfib

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"midplane/internal/fib/binding"
	"midplane/internal/fib/enter"
)

// A program without privileges can have another /etc/resolv.conf only in a mount namespace, and that only in a user
// namespace, which a process of several threads cannot enter (user_namespaces(7)). So there it is a child of Exec, which
// waits for it: this program itself first, in the new namespaces, where it mounts the file and then executes the
// program, supervised.

// job is what the child is told, through its file jobFile.
type job struct {
	Binding binding.Binding `json:"binding"`
	Path    string          `json:"path"`
	Argv    []string        `json:"argv"`
	Env     []string        `json:"env"`
	Options Options         `json:"options"`
}

const jobFile = 3

// forwarded are the signals that Exec, waiting, passes on. Those of the terminal go to the whole process group anyway.
var forwarded = []os.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2}

// runStaged runs a program in a user and mount namespace, supervised, and ends the process as the program ended. It
// returns only if that fails.
func runStaged(j job) error {
	text, err := json.Marshal(j)
	if err != nil {
		return err
	}
	argument, err := json.Marshal(assignment{Stage: true})
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	command := j.Options.Supervisor
	cmd := exec.Command(command[0], append(command[1:len(command):len(command)], string(argument))...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{read} // jobFile
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN}, // in that namespace only, until the program is executed
		Pdeathsig:   unix.SIGKILL,                  // of this thread, which is locked and waits
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, forwarded...)
	signal.Ignore(unix.SIGINT, unix.SIGQUIT)
	if err := cmd.Start(); err != nil {
		_ = write.Close()
		return &enter.PrivilegeError{FIB: enter.Title(j.Binding), Op: "make a user and mount namespace", Need: "CAP_SYS_ADMIN, or unprivileged user namespaces (user.max_user_namespaces, no chroot, security modules)",
			Why: "the FIB has name servers of its own, and " + resolvConf + " is mounted for its processes; or the consent to use the host's", Err: err}
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	_, werr := write.Write(text)
	if err := errors.Join(werr, write.Close()); err != nil {
		return err
	}
	err = cmd.Wait()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		return err
	}
	code := cmd.ProcessState.ExitCode()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		code = 128 + int(ws.Signal()) // as a shell says it
	}
	os.Exit(code)
	return nil
}

// stage is the child's part.
func stage() error {
	f := os.NewFile(jobFile, "job")
	var j job
	err := json.NewDecoder(f).Decode(&j)
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("the job of a program in a FIB, which fib exec gives: %w", err)
	}
	runtime.LockOSThread()
	if err := mountOwnResolvConf(j.Binding); err != nil {
		return fmt.Errorf("fib %s: name servers: %w", enter.Title(j.Binding), err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_CAP_AMBIENT): %w", err)
	}
	j.Binding.DNS = nil // they are there now
	r, err := ruleFor(j.Binding, j.Options.Port)
	if err != nil {
		return err
	}
	env, err := supervise(j.Binding, j.Env, r, j.Options)
	if err != nil {
		return err
	}
	return execve(j.Path, j.Argv, env)
}

// mountOwnResolvConf mounts a file that goes with the mount namespace.
func mountOwnResolvConf(b binding.Binding) error {
	f, err := os.CreateTemp("", "midplane-resolv")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(resolvText(b))
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	if err := unix.Mount(f.Name(), resolvConf, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount over %s: %w", resolvConf, err)
	}
	return nil
}
