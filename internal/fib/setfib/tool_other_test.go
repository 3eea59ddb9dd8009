//go:build !linux

package setfib

import "midplane/internal/sys"

func toolMain(string, []string) error { return &sys.UnsupportedError{Feature: "FIBs"} }
