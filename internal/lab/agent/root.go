//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// switchRoot makes the file system of a block device the root and its /sbin/init process 1: the guest is a system of its
// own then, in which a copy of this program runs as a service. It returns only when it fails.
func switchRoot(param map[string]string) error {
	modules, _ := filepath.Glob("/mods/*.ko")
	for _, m := range modules {
		if err := insertModule(m); err != nil {
			return fmt.Errorf("%s: %w", m, err)
		}
	}
	if err := syscall.Mount("none", "/dev", "devtmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount devtmpfs: %w", err)
	}
	device := param["lab.root"]
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(device); err == nil {
			break
		} else if time.Now().After(deadline) {
			return err
		}
	}
	if err := syscall.Mount(device, "/new", "ext4", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	err := errors.Join(syscall.Unmount("/dev", syscall.MNT_DETACH), syscall.Unmount("/proc", syscall.MNT_DETACH),
		syscall.Chdir("/new"), syscall.Mount(".", "/", "", syscall.MS_MOVE, ""), syscall.Chroot("."), syscall.Chdir("/"))
	if err != nil {
		return fmt.Errorf("switch root: %w", err)
	}
	return syscall.Exec("/sbin/init", []string{"/sbin/init"}, []string{"TERM=dumb"})
}
