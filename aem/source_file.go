package aem

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"midplane/internal/aem/source"
)

// FileOp is what happened to a file.
type FileOp uint32

// What happens to files.
const (
	FileCreated   FileOp = source.InCreate | source.InMovedTo
	FileRemoved   FileOp = source.InDelete | source.InMovedFrom | source.InDeleteSelf | source.InMoveSelf
	FileWritten   FileOp = source.InModify
	FileClosed    FileOp = source.InCloseWrite // one that was open for writing
	FileAttribute FileOp = source.InAttrib
	FileRead      FileOp = source.InAccess
	FileLost      FileOp = source.InOverflow // more happened than the kernel's queue holds; told unasked
)

// String lists the names.
func (o FileOp) String() string {
	var names []string
	for _, n := range []struct {
		op   FileOp
		name string
	}{
		{FileCreated, "created"}, {FileRemoved, "removed"}, {FileWritten, "written"}, {FileClosed, "closed"}, {FileAttribute, "attribute"}, {FileRead, "read"},
		{FileLost, "lost"},
	} {
		if o&n.op != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, "|")
}

// FileEvent is something that happened to a file.
type FileEvent struct {
	Path   string // of the file: what is watched, or what is in it
	Op     FileOp
	Dir    bool   // it is a directory
	Cookie uint32 // not 0: the removal and the creation that have the same are one renaming
}

// Files is the source of what happens to files and in directories, not below them (inotify). ops 0 is all but FileRead.
// When a watched file is removed its watch ends; the others go on.
func Files(ops FileOp, paths ...string) Source[FileEvent] {
	if ops == 0 {
		ops = FileCreated | FileRemoved | FileWritten | FileClosed | FileAttribute
	}
	names := map[int32]string{}
	var mu sync.Mutex // guards names
	b := make([]byte, 64<<10)
	return &fdSource[FileEvent]{
		name: "files " + strings.Join(paths, ", "),
		open: func() (int, error) {
			if len(paths) == 0 {
				return -1, &ConfigError{"paths", "none", "at least one"}
			}
			fd, err := source.Inotify()
			if err != nil {
				return -1, err
			}
			mu.Lock()
			defer mu.Unlock()
			clear(names)
			for _, p := range paths {
				wd, err := source.AddFile(fd, p, uint32(ops&^FileLost))
				if err != nil {
					source.Close(fd)
					return -1, err
				}
				names[int32(wd)] = p
			}
			return fd, nil
		},
		read: func(fd int, emit func(FileEvent) error) error {
			return readAll(fd, b, func(b []byte) error {
				for len(b) > 0 {
					e, rest, err := source.NextFileEvent(b)
					if err != nil {
						return err
					}
					b = rest
					if e.Mask&source.InIgnored != 0 {
						continue
					}
					mu.Lock()
					path := names[e.Watch]
					mu.Unlock()
					if e.Name != "" {
						path = filepath.Join(path, e.Name)
					}
					_ = emit(FileEvent{path, FileOp(e.Mask &^ source.InIsDir), e.Mask&source.InIsDir != 0, e.Cookie})
				}
				return nil
			})
		},
	}
}

// AccessOp is what was done with a file, of any process.
type AccessOp uint64

// What is done with files.
const (
	Accessed    AccessOp = source.FanAccess
	Modified    AccessOp = source.FanModify
	ClosedWrite AccessOp = source.FanCloseWrite
	Opened      AccessOp = source.FanOpen
	OpenedExec  AccessOp = source.FanOpenExec
	AccessLost  AccessOp = source.FanOverflow
)

// Access is something that a process did with a file.
type Access struct {
	Path string // as this process sees it; "" when it has no path any more
	PID  int
	Op   AccessOp
}

// Accesses is the source of what any process does with a file, or with all files of the mount or filesystem that path is in
// (scope "", "mount" or "filesystem"). It is fanotify's notification: it needs CAP_SYS_ADMIN, tells after the fact, and does
// not tell of what this process does itself.
func Accesses(path, scope string, ops AccessOp) Source[Access] {
	self := os.Getpid()
	b := make([]byte, 24*256)
	return &fdSource[Access]{
		name: fmt.Sprintf("accesses %s %s", scope, path),
		open: func() (int, error) { return source.Fanotify(path, scope, uint64(ops)) },
		read: func(fd int, emit func(Access) error) error {
			return readAll(fd, b, func(b []byte) error {
				for len(b) > 0 {
					e, rest, err := source.NextAccessEvent(b)
					if err != nil {
						return err
					}
					b = rest
					a := Access{PID: int(e.PID), Op: AccessOp(e.Mask)}
					if e.FD >= 0 {
						a.Path = source.PathOf(int(e.FD))
						source.Close(int(e.FD))
					}
					if a.PID != self {
						_ = emit(a)
					}
				}
				return nil
			})
		},
	}
}
