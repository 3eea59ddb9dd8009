package dpkg

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Bounds of what a package file can make us do.
const (
	maxMember   = 2 << 30  // octets of one file
	maxInMemory = 16 << 20 // bigger ones go through a temporary file
	maxSaid     = 4 << 10  // octets of dpkg-deb's complaints that are kept
)

// Identify tells which package a package file holds. It runs dpkg-deb, as does Walk.
func Identify(ctx context.Context, deb string) (*Package, error) {
	out, err := run(ctx, "--field", deb, "Package", "Version", "Architecture")
	if err != nil {
		return nil, err
	}
	p := &Package{installed: true}
	err = paragraphs(bytes.NewReader(out), func(f map[string]string) error {
		p.Name, p.Version, p.Architecture = f["Package"], f["Version"], f["Architecture"]
		return nil
	})
	if err == nil && (p.Name == "" || p.Version == "" || p.Architecture == "") {
		err = errors.New("no Package, Version or Architecture in it")
	}
	// The names make a file name of ours.
	for _, s := range []string{p.Name, p.Version, p.Architecture} {
		if err == nil && (strings.ContainsAny(s, "/\x00 ") || strings.HasPrefix(s, ".")) {
			err = fmt.Errorf("%q cannot be of a package", s)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", deb, err)
	}
	return p, nil
}

func run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "dpkg-deb", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.Output()
	if err != nil {
		return nil, told(cmd, err)
	}
	return out, nil
}

func told(cmd *exec.Cmd, err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%s: %s", strings.Join(cmd.Args, " "), bytes.TrimSpace(exit.Stderr[:min(len(exit.Stderr), maxSaid)]))
	}
	return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
}

// Walk calls use for every regular file of a package file and every maintainer script, with the name that it will have
// below the root. The content is good only during the call.
func Walk(ctx context.Context, deb string, use func(name string, size int64, content io.ReaderAt) error) error {
	p, err := Identify(ctx, deb)
	if err != nil {
		return err
	}
	err = members(ctx, "--ctrl-tarfile", deb, func(name string, size int64, content io.ReaderAt) error {
		if !slices.Contains(scripts, name) {
			return nil
		}
		return use(path.Join(infoDir, p.Name+"."+name), size, content)
	})
	if err != nil {
		return err
	}
	return members(ctx, "--fsys-tarfile", deb, use)
}

// members reads one of the tar archives in a package file.
func members(ctx context.Context, which, deb string, use func(string, int64, io.ReaderAt) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dpkg-deb", which, deb)
	var said limited
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = untar(out, use)
	if err == nil {
		_, err = io.Copy(io.Discard, out) // padding
	} else {
		cancel()
	}
	if ended := cmd.Wait(); ended != nil && (err == nil || said.Len() > 0) {
		err = errors.Join(fmt.Errorf("dpkg-deb %s %s: %w: %s", which, deb, ended, bytes.TrimSpace(said.Bytes())), err)
	}
	return err
}

// limited keeps the beginning of what is written.
type limited struct{ bytes.Buffer }

func (l *limited) Write(b []byte) (int, error) {
	l.Buffer.Write(b[:min(len(b), max(0, maxSaid-l.Len()))])
	return len(b), nil
}

func untar(r io.Reader, use func(string, int64, io.ReaderAt) error) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue // links are to files that come by themselves
		}
		if h.Size < 0 || h.Size > maxMember {
			return fmt.Errorf("%s: %d octets: want at most %d", h.Name, h.Size, int64(maxMember))
		}
		if err := spool(t, h, use); err != nil {
			return err
		}
	}
}

// spool gives random access to a member.
func spool(t *tar.Reader, h *tar.Header, use func(string, int64, io.ReaderAt) error) error {
	name := strings.Trim(path.Clean("/"+h.Name), "/")
	if h.Size <= maxInMemory {
		b := make([]byte, h.Size)
		if _, err := io.ReadFull(t, b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return use(name, h.Size, bytes.NewReader(b))
	}
	f, err := os.CreateTemp("", "midplane-deb-")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	if _, err := io.Copy(f, t); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return use(name, h.Size, f)
}

// Beside is where the manifest of a package file lies: in the same directory, or in one of the others, under the
// package's own name. It returns an empty string when there is none.
func Beside(deb string, p *Package, others ...string) string {
	for _, dir := range append([]string{filepath.Dir(deb)}, others...) {
		name := filepath.Join(dir, p.ID()+".mdm")
		if fi, err := os.Stat(name); err == nil && fi.Mode().IsRegular() {
			return name
		}
	}
	return ""
}
