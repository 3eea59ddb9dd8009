//go:build linux && !amd64

package enforcer

// Newer processors have neither.
const (
	sysOpen  = -2
	sysCreat = -3
)
