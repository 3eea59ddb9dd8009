//go:build linux && !amd64

package lab

func bigFPState() bool { return false }

var smallFPEnv []string

func refuseXState() error { return nil }
