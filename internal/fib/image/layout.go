package image

// Version of the format.
const Version = 2

// Magic begins an image: "MPFIB1" and two zeros.
const Magic uint64 = 0x00003142_4946504d

// Words of the header.
const (
	HeaderMagic    = 0
	HeaderVersion  = 1
	HeaderSize     = 2  // words of the image
	HeaderFIBs     = 3  // low half: where the FIB directory is; high half: number of descriptors
	HeaderNextHops = 4  // the same of the next-hop directory
	HeaderHeap     = 5  // low half: where the heap begins; high half: where it ends
	HeaderEpoch    = 16 // of next hops; on a cache line of its own
	HeaderWords    = 64
)

// Words of a FIB's descriptor.
const (
	DescEpoch      = 0
	DescRoot       = 1 // that of IPv4; IPv6 follows
	DescGeneration = 4
	DescID         = 5 // low half: the id; high half: flags
	DescName       = 6 // two words
	DescCount      = 8 // routes of each family: IPv4 in the low half
	DescWords      = 16

	DescInUse = 1 // flag

	// The word before a direct table: the slot of the tree of the prefixes that the table has in its slots, which only the
	// writer reads.
	DirectTop = 1
)

// A root has the default route in its high half, so that both change in one store. The low half is 0, or a slot that
// refers to a block, or tells of a direct table: where it is, a multiple of TableAlign, and its bits.
const (
	TableAlign = 512
	rootBits   = 1<<7 - 1
)

// Root makes the low half of a root with a direct table of 2^bits slots.
func Root(bits uint, table uint32) uint32 { return (table | uint32(bits)) << 1 }

// RootTable returns the direct table of a root, bits 0 if it has none.
func RootTable(root uint64) (bits uint, table uint32) {
	low := uint32(root)
	if low&SlotRef != 0 {
		return 0, 0
	}
	return uint(low>>1) & rootBits, low >> 1 &^ rootBits
}

// IsRoot says whether a root has a direct table of 2^bits slots, and TableAt where it is.
func IsRoot(root uint64, bits uint) bool {
	return uint32(root)&(rootBits<<1|SlotRef) == uint32(bits)<<1
}
func TableAt(root uint64) (at uint32) { return uint32(root) >> 1 &^ rootBits }

// SlotRef marks a slot that refers to a block, or in a direct table of a root to a direct table of 2^12 slots, which is
// told by its index: a multiple of TableAlign, where no block begins. What a slot refers to, or the next hop in it, is in the other bits.
const SlotRef uint32 = 1

// MaxID is the largest id of a next hop.
const MaxID uint32 = 1<<31 - 1

// Ref makes a slot that refers to a word, At is the reverse.
func Ref(at uint32) uint32     { return at<<1 | SlotRef }
func At(slot uint32) uint32    { return slot >> 1 }
func IsRef(slot uint32) bool   { return slot&SlotRef != 0 }
func IsTable(slot uint32) bool { return slot&SlotRef != 0 && slot>>1&(TableAlign-1) == 0 }

// Fields of a block's word 2. The low half is def.
const (
	BlockOff      = 32      // 16 bits: how many octets from the block on the child slots begin, less four
	BlockWide     = 1 << 48 // leaves have 32 bits
	BlockExternal = 1 << 49 // the writer's: its entries are in a direct table
	BlockShort    = 1 << 50 // the writer's: the word of prefixes of five bits and less is there
	BlockLong     = 1 << 51 // the writer's: the word of prefixes of six bits is there
	BlockHidden   = 56      // the writer's: how many values of prefixes follow, 8 bits
	BlockHead     = 3       // words before the leaves
	BlockMax      = 126     // words of a block at most
)

// Stride is how many bits of an address a block decides on.
const Stride = 6

// Double blocks: those of IPv6 from DoubleDepth bits on, which decide on DoubleStride.
const (
	DoubleDepth  = 24
	DoubleStride = 12

	DoubleHead     = 2       // words before the pairs
	DoubleCount    = 32      // field of word 1, the writer's: how many prefixes end in the block, 16 bits
	DoubleWide     = 1 << 48 // the writer's: they take a word each
	DoublePrefixes = 2<<DoubleStride - 2
)

// Fields of a word of the next-hop directory.
const (
	HopKind    = 32 // 8 bits: as fib.Type, or KindGroup
	HopFlags   = 40 // 8 bits
	HopBuckets = 48 // 8 bits: logarithm of the number of buckets of a group

	HopDown = 1 << HopFlags
	HopAuto = 2 << HopFlags // the writer's: it goes with its last use

	KindUnicast     = 1
	KindLocal       = 2
	KindBlackhole   = 3
	KindUnreachable = 4
	KindProhibit    = 5
	KindLookup      = 6
	KindGroup       = 7
	KindAbsent      = 8 // as KindLookup, but there is no such FIB: the reference is its id
)

// MinWords is the least size of an image.
const MinWords = 1 << 15

// MaxBuckets bounds the buckets of a group.
const MaxBuckets = 256

// MaxLeaks bounds how many FIBs one packet is looked up in.
const MaxLeaks = 8

// Lo and Hi are the halves of a word; Pair makes one.
func Lo(w uint64) uint32        { return uint32(w) }
func Hi(w uint64) uint32        { return uint32(w >> 32) }
func Pair(lo, hi uint32) uint64 { return uint64(hi)<<32 | uint64(lo) }
func Kind(w uint64) uint8       { return uint8(w >> HopKind) }

// Kind and Buckets are fields of a word of the next-hop directory.
func Buckets(w uint64) uint32 { return 1 << (w >> HopBuckets & 0xf) }
