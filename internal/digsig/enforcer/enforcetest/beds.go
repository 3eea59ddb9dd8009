//go:build linux

package enforcetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Image makes a file with a file system in it and mounts it by a loop device.
func Image(t testing.TB, megabytes int64, options string, mkfs ...string) string {
	t.Helper()
	img := filepath.Join(t.TempDir(), "img")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, megabytes<<20); err != nil {
		t.Fatal(err)
	}
	Tool(t, append(mkfs, img)...)
	return Loop(t, img, options)
}

// Loop mounts an image.
func Loop(t testing.TB, img, options string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mnt")
	if err != nil {
		t.Fatal(err)
	}
	if options != "" {
		options = "," + options
	}
	Tool(t, "mount", "-o", "loop"+options, img, dir)
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
		os.Remove(dir)
	})
	return dir
}

// Tool runs a program of the system that must succeed.
func Tool(t testing.TB, argv ...string) string {
	t.Helper()
	path, err := exec.LookPath(argv[0])
	if err != nil {
		t.Fatalf("no %s here (apt-get install xfsprogs e2fsprogs squashfs-tools mount binutils)", argv[0])
	}
	out, err := exec.Command(path, argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}

// Bed is a file system with files in it.
type Bed struct {
	Name string
	Dir  string // where the files are
	Mark string // what to watch
	RO   bool
}

// Beds makes one of each kind of file system, with what fill puts in.
func Beds(t testing.TB, fill func(dir string)) []Bed {
	t.Helper()
	var all []Bed
	add := func(name, dir string) {
		fill(dir)
		all = append(all, Bed{Name: name, Dir: dir, Mark: dir})
	}
	add("tmpfs", Tmpfs(t))
	add("ext4", Image(t, 128, "", "mkfs.ext4", "-q", "-F"))
	add("xfs", Image(t, 320, "", "mkfs.xfs", "-q", "-f"))

	layers := Tmpfs(t)
	for _, d := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(layers, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fill(filepath.Join(layers, "lower"))
	over := Mount(t, "overlay", "test", fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", layers))
	all = append(all, Bed{Name: "overlay", Dir: over, Mark: layers})

	tree := t.TempDir()
	fill(tree)
	img := filepath.Join(t.TempDir(), "squash")
	Tool(t, "mksquashfs", tree, img, "-quiet", "-no-progress")
	dir := Loop(t, img, "ro")
	all = append(all, Bed{Name: "squashfs", Dir: dir, Mark: dir, RO: true})
	return all
}
