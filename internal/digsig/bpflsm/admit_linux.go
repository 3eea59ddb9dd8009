package bpflsm

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// local are the file systems that only this kernel writes to, by the magic numbers of their super blocks. Of others (NFS,
// FUSE and their like) a verdict would not hold, so the programs take none about them. An overlay counts as local: its
// lower layers must be.
var local = []uint64{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.RAMFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC,
	unix.SQUASHFS_MAGIC, unix.EROFS_SUPER_MAGIC_V1, unix.ISOFS_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC, unix.EXFAT_SUPER_MAGIC, unix.NILFS_SUPER_MAGIC,
	unix.JFFS2_SUPER_MAGIC, unix.UDF_SUPER_MAGIC, unix.CRAMFS_MAGIC, unix.REISERFS_SUPER_MAGIC, 0x2fc12fc1 /* ZFS */, 0xca451a4e, /* bcachefs */
}

// Begin says that the content of f's inode is about to be read for a verdict. Commit then gives it, unless somebody
// opened the file for writing or cut it in between; it is for the caller to see to it that nobody has it open for
// writing at Begin, as a lease (F_RDLCK) does, and that one at a time judges an inode. Where others than this kernel can
// change a file (NFS, FUSE and their like) no verdict will count (Remote); where the file system says so, Begin does.
func (g *Gate) Begin(f *os.File) error {
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
		return fmt.Errorf("bpflsm: %s: %w", f.Name(), err)
	}
	if !slices.Contains(local, uint64(uint32(s.Type))) {
		return fmt.Errorf("bpflsm: %s: this file system (type %#x) is none that only this kernel writes to, so no verdict would hold", f.Name(), uint32(s.Type))
	}
	return g.store(f, lsmVerdict{Kind: uint32(Pending)}, ebpf.UpdateAny)
}

// Commit gives the verdict about f's inode: its content is what sum names, and has the roles that the grant for it
// (Digest{Content, sum}) says, now and whenever that grant changes. It ends with the next opening for writing, and when
// the kernel forgets the inode. The error is ErrChanged when somebody opened the file for writing since Begin.
func (g *Gate) Commit(f *os.File, sum [32]byte) error {
	s, err := g.settings()
	if err != nil {
		return err
	}
	err = g.store(f, lsmVerdict{Kind: uint32(Content), Generation: s.ContentFloor, Content: sum}, ebpf.UpdateExist)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("%s: %w", f.Name(), ErrChanged)
	}
	return err
}

func (g *Gate) store(f *os.File, v lsmVerdict, flags ebpf.MapUpdateFlags) error {
	if err := g.maps.Verdicts.Update(int32(f.Fd()), &v, flags); err != nil {
		return fmt.Errorf("bpflsm: verdict about %s: %w", f.Name(), err)
	}
	return nil
}

// Admit reads f by judge and gives the verdict that judge returns, with the grant for it; ok false gives none. While
// judge reads, nobody else can write: the file has a lease, for which this process must own the file or have CAP_LEASE.
// f must be open for reading only. The errors are ErrBusy, ErrChanged, judge's and the kernel's.
func (g *Gate) Admit(f *os.File, judge func() (grant Grant, ok bool, err error)) error {
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		if errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("%s: %w", f.Name(), ErrBusy)
		}
		return fmt.Errorf("bpflsm: lease of %s: %w", f.Name(), err)
	}
	defer unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	if err := g.Begin(f); err != nil {
		return err
	}
	grant, ok, err := judge()
	if err != nil || !ok {
		return errors.Join(err, g.Forget(f))
	}
	grant.Kind = Content
	if err := g.Allow(grant); err != nil {
		return errors.Join(err, g.Forget(f))
	}
	return g.Commit(f, grant.Sum)
}

// Forget takes the verdict about f's inode away, if there is one.
func (g *Gate) Forget(f *os.File) error {
	err := g.maps.Verdicts.Delete(int32(f.Fd()))
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("bpflsm: verdict about %s: %w", f.Name(), err)
	}
	return nil
}

// ForgetAll takes all verdicts of user space away.
func (g *Gate) ForgetAll() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.change(func(s *lsmSettings) { s.ContentFloor++ })
}

// Known returns what vouches for f's inode; Kind is None when nothing does, or when the kernel has not looked yet.
func (g *Gate) Known(f *os.File) (Digest, error) {
	var v lsmVerdict
	err := g.maps.Verdicts.Lookup(int32(f.Fd()), &v)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return Digest{}, nil
	}
	if err != nil {
		return Digest{}, fmt.Errorf("bpflsm: verdict about %s: %w", f.Name(), err)
	}
	d := Digest{Kind: Kind(v.Kind)}
	switch d.Kind {
	case Verity:
		copy(d.Sum[:], v.Fsverity.Digest[:])
	case Content:
		d.Sum = v.Content
	}
	return d, nil
}
