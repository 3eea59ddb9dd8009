// Package dpkg reads what DigSig needs of Debian's package manager: which packages a system has, which files are theirs
// and what they should contain, and what is in a package file. It changes nothing.
package dpkg

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// Where dpkg keeps its database, below the root of a system.
const (
	infoDir        = "var/lib/dpkg/info"
	statusFile     = "var/lib/dpkg/status"
	diversionsFile = "var/lib/dpkg/diversions"
)

// maxLine bounds a line of dpkg's files.
const maxLine = 1 << 20

// Package is one package of one architecture.
type Package struct {
	Name, Architecture, Version string
	multi                       bool // Multi-Arch: same, so its files have the architecture in their names
	installed                   bool
}

// ID is NAME_VERSION_ARCHITECTURE with the colon of an epoch as %3a, as apt names package files.
func (p *Package) ID() string {
	return p.Name + "_" + strings.ReplaceAll(p.Version, ":", "%3a") + "_" + p.Architecture
}

// Database is dpkg's, of the system below a root.
type Database struct {
	root     *os.Root
	packages []*Package
	diverted map[string]diversion
}

// diversion says that all packages but one put a file elsewhere.
type diversion struct{ to, by string }

// Open reads the list of packages. Close the result.
func Open(root string) (*Database, error) {
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	db := &Database{root: r}
	if err := errors.Join(db.readStatus(), db.readDiversions()); err != nil {
		return nil, errors.Join(fmt.Errorf("dpkg's database below %s: %w", root, err), r.Close())
	}
	return db, nil
}

// Close closes the root.
func (db *Database) Close() error { return db.root.Close() }

// Root is the root of the system; names of files are relative to it. Symbolic links that lead out of it are errors.
func (db *Database) Root() *os.Root { return db.root }

// Packages lists those that are there, also those of which only configuration is left.
func (db *Database) Packages() []*Package { return db.packages }

// Find returns the package that is named NAME or NAME:ARCHITECTURE.
func (db *Database) Find(name string) (*Package, error) {
	name, arch, _ := strings.Cut(name, ":")
	var found []*Package
	for _, p := range db.packages {
		if p.Name == name && (arch == "" || p.Architecture == arch) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("package %s is not installed", name)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("package %s is installed for %d architectures: say %s:%s", name, len(found), name, found[0].Architecture)
}

func (db *Database) readStatus() error {
	f, err := db.root.Open(statusFile)
	if err != nil {
		return err
	}
	defer f.Close()
	return paragraphs(f, func(fields map[string]string) error {
		// "want flag status"
		state := strings.Fields(fields["Status"])
		if fields["Package"] == "" || len(state) != 3 {
			return fmt.Errorf("%s: a paragraph with Package %q and Status %q", statusFile, fields["Package"], fields["Status"])
		}
		if state[2] == "not-installed" {
			return nil
		}
		db.packages = append(db.packages, &Package{
			Name: fields["Package"], Architecture: fields["Architecture"], Version: fields["Version"], multi: fields["Multi-Arch"] == "same", installed: state[2] != "config-files",
		})
		return nil
	})
}

// paragraphs reads control files: fields of the form Name: value, paragraphs separated by empty lines. Lines that go on
// are left out, since no field that matters here has some.
func paragraphs(r io.Reader, use func(map[string]string) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	fields := map[string]string{}
	flush := func() error {
		if len(fields) == 0 {
			return nil
		}
		err := use(fields)
		fields = map[string]string{}
		return err
	}
	for s.Scan() {
		line := s.Text()
		switch {
		case strings.TrimSpace(line) == "":
			if err := flush(); err != nil {
				return err
			}
		case line[0] != ' ' && line[0] != '\t':
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				return fmt.Errorf("line %q: want Field: value", line)
			}
			fields[name] = strings.TrimSpace(value)
		}
	}
	return errors.Join(s.Err(), flush())
}

// readDiversions reads three lines each: from, to, the package that keeps the first (: for the administrator).
func (db *Database) readDiversions() error {
	db.diverted = map[string]diversion{}
	lines, err := db.lines(diversionsFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(lines)%3 != 0 {
		return fmt.Errorf("%s: %d lines are no triples", diversionsFile, len(lines))
	}
	for l := range slices.Chunk(lines, 3) {
		db.diverted[l[0]] = diversion{l[1], l[2]}
	}
	return nil
}

func (db *Database) lines(name string) ([]string, error) {
	f, err := db.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	s := bufio.NewScanner(f)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		lines = append(lines, s.Text())
	}
	return lines, s.Err()
}

// info is the name of a file about a package.
func (db *Database) info(p *Package, kind string) string {
	if p.multi {
		return path.Join(infoDir, p.Name+":"+p.Architecture+"."+kind)
	}
	return path.Join(infoDir, p.Name+"."+kind)
}

// scripts are the maintainer scripts that dpkg runs, and debconf's.
var scripts = []string{"preinst", "postinst", "prerm", "postrm", "config"}

// Files lists the package's files and maintainer scripts by where they are now, relative to the root; directories, links
// and what was deleted are among them.
func (db *Database) Files(p *Package) ([]string, error) {
	var files []string
	lines, err := db.lines(db.info(p, "list"))
	if err != nil && (p.installed || !errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	for _, l := range lines {
		if f := db.place(p, l); f != "" {
			files = append(files, f)
		}
	}
	for _, s := range scripts {
		name := db.info(p, s)
		if _, err := db.root.Lstat(name); err == nil {
			files = append(files, name)
		}
	}
	return files, nil
}

// place is where a file of the package is, relative to the root.
func (db *Database) place(p *Package, name string) string {
	if d, ok := db.diverted[name]; ok && d.by != p.Name {
		name = d.to
	}
	return strings.Trim(path.Clean("/"+name), "/")
}

// Sums returns the MD5 sums that the package came with, in hexadecimal, by where its files are now. They tell accidents
// and clumsy changes; who can change a program can change its sum.
func (db *Database) Sums(p *Package) (map[string]string, error) {
	lines, err := db.lines(db.info(p, "md5sums"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sums := make(map[string]string, len(lines))
	for _, l := range lines {
		sum, name, ok := strings.Cut(l, "  ")
		if !ok || len(sum) != 32 {
			return nil, fmt.Errorf("%s: line %q: want a sum, two blanks and a name", db.info(p, "md5sums"), l)
		}
		sums[db.place(p, "/"+name)] = sum
	}
	return sums, nil
}
