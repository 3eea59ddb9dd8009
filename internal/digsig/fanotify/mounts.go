package fanotify

import "strings"

// places are the types that are not Local. A type that nobody thought of is, so that it is marked or reported.
var places = map[string]Place{
	// Interfaces of the kernel: nothing can be stored in them.
	"proc": Skip, "sysfs": Skip, "cgroup": Skip, "cgroup2": Skip, "devpts": Skip, "mqueue": Skip, "debugfs": Skip,
	"tracefs": Skip, "securityfs": Skip, "selinuxfs": Skip, "smackfs": Skip, "bpf": Skip, "pstore": Skip, "configfs": Skip, "fusectl": Skip, "nsfs": Skip,
	"binfmt_misc": Skip, "autofs": Skip, "rpc_pipefs": Skip, "efivarfs": Skip, "nfsd": Skip, "resctrl": Skip, "functionfs": Skip,
	"overlay": Skip, // see the package's facts

	"devtmpfs": ExecOnly, // opening a device does something to it

	"fuse": Foreign, "fuseblk": Foreign, "virtiofs": Foreign, "nfs": Foreign, "nfs4": Foreign, "cifs": Foreign, "smb3": Foreign, "smbfs": Foreign,
	"9p": Foreign, "ceph": Foreign, "afs": Foreign, "coda": Foreign, "orangefs": Foreign, "lustre": Foreign, "gfs2": Foreign, "ocfs2": Foreign,
	"glusterfs": Foreign, "vboxsf": Foreign, "ecryptfs": Foreign,
}

// PlaceOf says how file systems of a type are watched.
func PlaceOf(fstype string) Place {
	if p, ok := places[fstype]; ok {
		return p
	}
	if strings.HasPrefix(fstype, "fuse.") || strings.HasPrefix(fstype, "fuseblk.") {
		return Foreign
	}
	return Local
}

// Immutable says whether a file system's type has no writing at all, so that its files need no lease. A file system that
// is only mounted read-only can be remounted, so leases are taken on its files.
func Immutable(fstype string) bool {
	switch fstype {
	case "squashfs", "erofs", "iso9660", "cramfs", "romfs":
		return true
	}
	return false
}

// Types of the numbers that fstatfs(2) gives for what Immutable is true for and for what can change on its own.
const (
	magicSquashfs = 0x73717368
	magicErofs    = 0xe0f5e1e2
	magicISO      = 0x9660
	magicCramfs   = 0x28cd3d45
	magicRomfs    = 0x7275
)

// ImmutableMagic is Immutable by f_type of fstatfs(2).
func ImmutableMagic(magic int64) bool {
	switch uint32(magic) {
	case magicSquashfs, magicErofs, magicISO, magicCramfs, magicRomfs:
		return true
	}
	return false
}
