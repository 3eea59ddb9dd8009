package fanotify

import (
	"fmt"
	"strconv"
	"strings"
)

// Mount is one line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
type Mount struct {
	ID      int
	Dev     string // major:minor of the super block
	Root    string
	Point   string
	Options string // of the mount
	Type    string
	Source  string
	Super   string // options of the super block
}

// ParseMounts reads a mountinfo. Lines that it cannot read are an error, as a mount that is overlooked is a way around.
func ParseMounts(text string) ([]Mount, error) {
	var all []Mount
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		before, after, ok := strings.Cut(line, " - ")
		head, tail := strings.Split(before, " "), strings.Split(after, " ")
		if !ok || len(head) < 6 || len(tail) < 3 {
			return nil, fmt.Errorf("mountinfo: line %q", line)
		}
		id, err := strconv.Atoi(head[0])
		if err != nil {
			return nil, fmt.Errorf("mountinfo: line %q: %w", line, err)
		}
		all = append(all, Mount{ID: id, Dev: head[2], Root: unescape(head[3]), Point: unescape(head[4]), Options: head[5],
			Type: tail[0], Source: unescape(tail[1]), Super: tail[2]})
	}
	return all, nil
}

// unescape takes back what the kernel did to blanks (fs/proc_namespace.c, mangle).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// Layers returns the directories that an overlay is made of, as its mount options name them: they are paths of where it
// was mounted.
func (m *Mount) Layers() (dirs []string) {
	if m.Type != "overlay" {
		return nil
	}
	for o := range strings.SplitSeq(m.Super, ",") {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "lowerdir":
			for d := range strings.SplitSeq(value, ":") {
				if d != "" {
					dirs = append(dirs, unescape(d))
				}
			}
		case "lowerdir+", "datadir+", "upperdir":
			dirs = append(dirs, unescape(value))
		}
	}
	return dirs
}

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
