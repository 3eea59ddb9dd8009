//go:build linux

// Agent is the first program of a lab guest: it sets the guest up (as process 1, from the initramfs) and then runs
// programs for the test that booted the guest, which talks to it over a serial line (/dev/ttyS0 of a User-Mode Linux,
// the virtio port of a virtual machine) in frames of package proto. It uses nothing but the standard library, so that the initramfs is this one file and modules.
package main

import (
	"fmt"
	"os"
	"syscall"
)

func main() {
	if os.Getpid() != 1 {
		if err := serve(); err != nil {
			fmt.Fprintln(os.Stderr, "lab agent:", err)
			os.Exit(1)
		}
		return
	}
	failed := proc()
	if param := kernelParameters(); param["lab.root"] != "" {
		fmt.Fprintln(os.Stderr, "lab agent:", switchRoot(param))
		powerOff()
	}
	report := setup()
	if failed != nil {
		report = "mount /proc: " + failed.Error() + "\n" + report
	}
	reap(report)
	powerOff()
}

// reap runs the agent proper as a child and buries every orphan of the guest until that child ends.
// Process 1 itself runs no programs, so nobody else waits for children here.
func reap(report string) {
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"lab-agent", report}, &syscall.ProcAttr{
		Dir:   "/root",
		Env:   environment(),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab agent:", err)
		return
	}
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		if got == pid || (err != nil && err != syscall.EINTR) {
			return
		}
	}
}

func environment() []string {
	common := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LANG=C.UTF-8", "TERM=dumb", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1",
	}
	if virtual(kernelParameters()) {
		return common
	}
	return append(common,
		// A guest's kernel may lose vector registers when a signal interrupts a program, and Go's scheduler interrupts
		// by signals; so Go programs, the agent first, shall do without. On some machines it keeps only the lower
		// halves of these registers (see bigFPState of package lab); so nobody shall use the upper ones.
		"GODEBUG=asyncpreemptoff=1,cpu.all=off", "GOMAXPROCS=1",
		"GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD,-FMA,-BMI2,-XSAVEC,-AVX_Fast_Unaligned_Load",
	)
}

func powerOff() {
	syscall.Sync()
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}
