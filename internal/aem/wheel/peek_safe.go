//go:build race || msan || asan || midplane_safe

package wheel

// peek does nothing: detectors would take the read for one that counts.
func peek(any) byte { return 0 }
