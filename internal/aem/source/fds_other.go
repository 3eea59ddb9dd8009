//go:build !linux

package source

import (
	"errors"
	"time"

	"midplane/internal/sys"
)

// Masks of inotify and fanotify that package aem names.
const (
	InAccess, InModify, InAttrib, InCloseWrite = 0x1, 0x2, 0x4, 0x8
	InMovedFrom, InMovedTo, InCreate, InDelete = 0x40, 0x80, 0x100, 0x200
	InDeleteSelf, InMoveSelf, InIgnored        = 0x400, 0x800, 0x8000
	InOverflow, InIsDir                        = 0x4000, 0x40000000

	FanAccess, FanModify, FanCloseWrite = 0x1, 0x2, 0x8
	FanOpen, FanOpenExec, FanOverflow   = 0x20, 0x1000, 0x4000

	LinkGroups, AddrGroups, RouteGroups = 0, 0, 0
)

// Errors of Read.
var (
	ErrAgain    = errors.New("aem/source: nothing to read")
	ErrOverflow = errors.New("aem/source: the kernel's queue was full")
)

func lacks(what string) error { return &sys.UnsupportedError{Feature: what + " outside of Linux"} }

// What follows exists on Linux only.

func Close(int)                                {}
func Read(int, []byte) (int, error)            { return 0, lacks("reading descriptors") }
func Write(int, []byte) error                  { return lacks("writing descriptors") }
func Pidfd(int) (int, error)                   { return -1, lacks("pidfd") }
func ExitOf(int) (code, signal int, ok bool)   { return 0, 0, false }
func Inotify() (int, error)                    { return -1, lacks("inotify") }
func AddFile(int, string, uint32) (int, error) { return 0, lacks("inotify") }
func Fanotify(string, string, uint64) (int, error) {
	return -1, lacks("fanotify")
}
func PathOf(int) string           { return "" }
func Eventfd() (int, error)       { return -1, lacks("eventfd") }
func Duplicate(int) (int, error)  { return -1, lacks("duplicating descriptors") }
func Netlink(uint32) (int, error) { return -1, lacks("netlink") }
func Pressure(string, bool, time.Duration, time.Duration) (int, error) {
	return -1, lacks("pressure stall information")
}
