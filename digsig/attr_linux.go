package digsig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// XattrUser and XattrSecurity are the extended attributes that carry a signature. They are transport only: what they hold is
// checked like any other signature. The second needs CAP_SYS_ADMIN to be set.
const (
	XattrUser     = "user.midplane.sig"
	XattrSecurity = "security.midplane.sig"
)

// maxXattr is what Linux allows (XATTR_SIZE_MAX).
const maxXattr = 64 << 10

func links(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(s.Nlink)
	}
	return 1
}

type inode struct{ dev, ino uint64 }

func inodeOf(info fs.FileInfo) (inode, bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return inode{}, false
	}
	return inode{uint64(s.Dev), s.Ino}, true
}

// SignatureXattr returns the signature in an open file's extended attributes, for Request.Signature, or nil: what is in
// XattrSecurity, else in XattrUser.
func SignatureXattr(f *os.File) []byte {
	b := make([]byte, 4096)
	for _, attr := range []string{XattrSecurity, XattrUser} {
		if n, err := syscall.Getxattr(procPath(f), attr, b); err == nil && n > 0 {
			return b[:n]
		}
	}
	return nil
}

// SetXattr puts a signature from SignStatement in an extended attribute of a file: XattrSecurity or XattrUser.
func SetXattr(name, attr string, signed []byte) error {
	if attr != XattrSecurity && attr != XattrUser {
		return fmt.Errorf("attribute %q: want %s or %s", attr, XattrSecurity, XattrUser)
	}
	if err := syscall.Setxattr(name, attr, signed, 0); err != nil {
		return &fs.PathError{Op: "setxattr " + attr, Path: name, Err: err}
	}
	return nil
}

// copyAttributes gives a new file the owner, mode and extended attributes of the old. A signature in an attribute is left
// out, as it is of the old content. Order matters: a change of owner clears set-user-ID bits and capabilities.
func copyAttributes(w, f *os.File, info fs.FileInfo) error {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("no owner is known")
	}
	if now, err := w.Stat(); err != nil {
		return err
	} else if n, ok := now.Sys().(*syscall.Stat_t); !ok || n.Uid != s.Uid || n.Gid != s.Gid {
		if err := w.Chown(int(s.Uid), int(s.Gid)); err != nil {
			return err
		}
	}
	if err := w.Chmod(info.Mode()); err != nil {
		return err
	}
	from, to := procPath(f), procPath(w)
	list := make([]byte, maxXattr)
	n, err := syscall.Listxattr(from, list)
	if errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("extended attributes: %w", err)
	}
	value := make([]byte, maxXattr)
	for attr := range strings.SplitSeq(string(list[:n]), "\x00") {
		if attr == "" || attr == XattrUser || attr == XattrSecurity {
			continue
		}
		n, err := syscall.Getxattr(from, attr, value)
		if err == nil {
			err = syscall.Setxattr(to, attr, value[:n], 0)
		}
		if err != nil && !(attr == "security.selinux" && errors.Is(err, syscall.ENOTSUP)) {
			return fmt.Errorf("extended attribute %s: %w", attr, err)
		}
	}
	return nil
}

// procPath names an open file whatever happened to its name.
func procPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
