package enrol

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"midplane/internal/digsig/verity"
	"midplane/internal/sys"
)

// ErrNotEnabled says that a file has no fs-verity, although it could.
var ErrNotEnabled = errors.New("fs-verity is not enabled on the file")

// Measure returns the digest that the kernel has for a file whose fs-verity is enabled. It takes no time: nothing is
// read. The error is ErrNotEnabled, or names what lacks.
func Measure(f *os.File) (verity.Digest, error) {
	var d struct {
		algorithm, size uint16
		octets          [64]byte
	}
	d.size = uint16(len(d.octets))
	if err := ioctl(f, unix.FS_IOC_MEASURE_VERITY, unsafe.Pointer(&d)); err != nil {
		if errors.Is(err, unix.ENODATA) {
			return verity.Digest{}, fmt.Errorf("%s: %w", f.Name(), ErrNotEnabled)
		}
		return verity.Digest{}, explain(f, "measure", err)
	}
	if int(d.size) > len(d.octets) || d.algorithm > 255 {
		return verity.Digest{}, fmt.Errorf("%s: the kernel's digest has algorithm %d and %d octets", f.Name(), d.algorithm, d.size)
	}
	return verity.NewDigest(verity.Algorithm(d.algorithm), d.octets[:d.size])
}

// Enable makes a file immutable, content and size, for everybody and as long as it exists: every page that is read from
// then on is checked against the Merkle tree that the kernel builds now. Names, links, owner and mode can still change,
// and the file can be removed. f must be open for reading only, and nobody may have it open for writing. A parameter
// block size of 0 is the largest of the default and what the file system takes. The kernel reads the whole file.
func Enable(f *os.File, p verity.Params) error {
	if p.Algorithm == 0 {
		p.Algorithm = verity.SHA256
	}
	if p.BlockSize == 0 {
		p.BlockSize = blockSize(f)
	}
	if len(p.Salt) > verity.MaxSalt {
		return fmt.Errorf("fs-verity: salt of %d octets is longer than %d", len(p.Salt), verity.MaxSalt)
	}
	arg := enableArg{version: 1, algorithm: uint32(p.Algorithm), blockSize: uint32(p.BlockSize), saltSize: uint32(len(p.Salt))}
	var pin runtime.Pinner
	defer pin.Unpin()
	if len(p.Salt) > 0 {
		pin.Pin(&p.Salt[0])
		arg.salt = uint64(uintptr(unsafe.Pointer(&p.Salt[0])))
	}
	if err := ioctl(f, unix.FS_IOC_ENABLE_VERITY, unsafe.Pointer(&arg)); err != nil {
		return explain(f, "enable", err)
	}
	return nil
}

// enableArg is struct fsverity_enable_arg (include/uapi/linux/fsverity.h). The kernel's own signatures are not used.
type enableArg struct {
	version, algorithm, blockSize, saltSize uint32
	salt                                    uint64
	sigSize, _                              uint32
	sig                                     uint64
	_                                       [11]uint64
}

// blockSize is what Enable takes by itself: the kernel refuses blocks of the tree that are larger than those of the file
// system.
func blockSize(f *os.File) int {
	var s unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &s) == nil && s.Bsize >= verity.MinBlockSize && s.Bsize < verity.DefaultBlockSize {
		return int(s.Bsize)
	}
	return verity.DefaultBlockSize
}

// Part is a part of what the kernel keeps for a file with fs-verity.
type Part uint64

// The parts.
const (
	MerkleTree Part = 1 // its blocks, the root's first
	Descriptor Part = 2 // struct fsverity_descriptor, whose hash is the digest
	Signature  Part = 3 // the kernel's own PKCS#7 signature, if one was given
)

// ReadMetadata reads a part from an offset into b, and returns how many octets there were; 0 is the end. It needs Linux
// 5.12.
func ReadMetadata(f *os.File, part Part, b []byte, offset uint64) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	var pin runtime.Pinner
	pin.Pin(&b[0])
	defer pin.Unpin()
	arg := struct{ part, offset, length, buf, _ uint64 }{uint64(part), offset, uint64(len(b)), uint64(uintptr(unsafe.Pointer(&b[0]))), 0}
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.FS_IOC_READ_VERITY_METADATA, uintptr(unsafe.Pointer(&arg)))
	switch errno {
	case 0:
		return int(n), nil
	case unix.ENODATA:
		if part == Signature {
			return 0, nil
		}
		return 0, fmt.Errorf("%s: %w", f.Name(), ErrNotEnabled)
	}
	return 0, explain(f, "read metadata of", errno)
}

func ioctl(f *os.File, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// explain says what lacks where the kernel's number alone would not (Documentation/filesystems/fsverity.rst).
func explain(f *os.File, what string, err error) error {
	unsupported := func(feature string) error {
		return fmt.Errorf("%s fs-verity of %s: %w", what, f.Name(), &sys.UnsupportedError{Feature: feature, Err: err})
	}
	plain := func(words string) error { return fmt.Errorf("%s fs-verity of %s: %s: %w", what, f.Name(), words, err) }
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return unsupported("fs-verity on this file system (ext4: tune2fs -O verity DEVICE; f2fs: mkfs.f2fs -O verity; or a kernel with CONFIG_FS_VERITY=y)")
	case errors.Is(err, unix.ENOTTY):
		return unsupported("fs-verity on this file system (ext4, f2fs and btrfs have it, with CONFIG_FS_VERITY=y)")
	case errors.Is(err, unix.ENOPKG):
		return unsupported("the hash of the tree (CONFIG_CRYPTO_SHA256 or CONFIG_CRYPTO_SHA512)")
	case errors.Is(err, unix.EINVAL):
		return plain("the tree's block size is above that of the file system or the kernel's pages, or the file is no regular one")
	case errors.Is(err, unix.ETXTBSY):
		return plain("somebody has it open for writing")
	case errors.Is(err, unix.EEXIST):
		return plain("it is enabled already")
	case errors.Is(err, unix.EACCES):
		return plain("writing to it must be allowed")
	case errors.Is(err, unix.EPERM):
		return plain("it may only be appended to (chattr -a)")
	case errors.Is(err, unix.EFBIG):
		return plain("it is too big")
	}
	return plain("the kernel refuses")
}
