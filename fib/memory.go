package fib

// DefaultSize is the size of an image in octets unless Config says another. Where memory comes from the system as it is
// used (Linux, other Unix systems), it is only the bound.
const DefaultSize = defaultSize

// Bounds of Config.Size.
const (
	MinSize = 256 << 10
	MaxSize = 16 << 30 // slots refer to words with 31 bits
)
