package cases

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"midplane/digsig"
	"midplane/internal/digsig/elfsig"
	. "midplane/internal/digsig/enforcer/enforcetest"
	"midplane/internal/lab"
)

// kit is what the cases have in common: programs outside of what is watched, and a tmpfs that is watched.
type kit struct {
	*table
	r     *Rig
	main  string // the tmpfs
	hello string // unsigned, dynamic
	tools string // signed programs that do things, not watched
	hot   []byte // a signed program that exits with 66 when the octet at hotAt is not '0'
	hotAt int
	loops map[string]string // mounts that are made while the enforcer runs
}

// TestIntegrationTierF runs the hostile cases of the table natively.
func TestIntegrationTierF(t *testing.T) {
	lab.RequireNamespaces(t)
	k := &kit{table: &table{t: t}}
	k.main = Tmpfs(t)
	k.hello = Compile(t, Hello)
	k.r = New(t)
	k.r.Serial = 5
	k.r.Revoke(func(*digsig.Revocations) {})

	beds := Beds(t, k.fill)
	for _, b := range beds {
		k.r.Config.Mounts = append(k.r.Config.Mounts, b.Mark)
	}
	k.r.Config.Mounts = append(k.r.Config.Mounts, k.main)
	k.fill(k.main)
	k.before()

	early := exec.Command(filepath.Join(k.main, "early"))
	early.Stdout = os.Stdout
	if err := early.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = early.Process.Kill(); _ = early.Wait() }()
	fd, err := os.Open(filepath.Join(k.main, "code"))
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	if err := k.r.TryStart(); err == nil || !strings.Contains(err.Error(), "would be denied") {
		t.Fatalf("an enforcer that would deny what runs began: %v", err)
	}
	k.r.Config.Force, k.r.Config.Watchdog = true, 2*time.Second
	k.r.Start()
	s := k.r.Status()
	got := gap
	if s.Earlier == nil || len(s.Earlier.Denied) == 0 || s.Earlier.Denied[0].Path != filepath.Join(k.main, "early") {
		got = fmt.Sprintf("not listed: %+v", s.Earlier)
	} else if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", early.Process.Pid)); err != nil || exe != filepath.Join(k.main, "early") {
		got = fmt.Sprintf("it does not run: %s, %v", exe, err)
	}
	k.add(53, "a program that ran before the enforcer goes on (listed)", "tmpfs", gap, got)

	for _, b := range beds {
		k.static(b)
		if !b.RO {
			k.writes(b)
		}
	}
	k.loading()
	k.ways(fd)
	k.scripts()
	k.lists()
	k.odd()
	k.print(k.r.Status())
	if t.Failed() {
		t.Logf("%.4000s", k.r.Log())
	}
}

// mutant writes a copy of a signed program with one thing changed.
func mutant(t testing.TB, signed, to string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(signed)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, change(bytes.Clone(b)), 0o755); err != nil {
		t.Fatal(err)
	}
}

func flip(at func([]byte) int) func([]byte) []byte {
	return func(b []byte) []byte { b[at(b)] ^= 1; return b }
}

// Places in an ELF file of this processor.
func entry(b []byte) int    { return 24 }
func shoff(b []byte) int    { return int(binary.LittleEndian.Uint64(b[40:])) }
func phdr(b []byte) int     { return int(binary.LittleEndian.Uint64(b[32:])) + 4 }
func slot(b []byte) int     { return len(b) - elfsig.SlotSize }
func codeAt(b []byte) int   { return 0x1000 + 8 }
func padding(b []byte) int  { return len(b) - 1 }
func sigBytes(b []byte) int { return slot(b) + 100 }

// mutants are the altered programs of cases 3 to 11, 17 to 19, by name.
var mutants = []struct {
	number int
	what   string
	change func([]byte) []byte
}{
	{3, "bit flipped in .text", flip(codeAt)},
	{4, "bit flipped in e_entry", flip(entry)},
	{5, "bit flipped in a program header (flags)", flip(phdr)},
	{6, "bit flipped in the section table", flip(func(b []byte) int { return shoff(b) + 70 })},
	{7, "octet appended", func(b []byte) []byte { return append(b, 0) }},
	{8, "bit flipped in the signature", flip(sigBytes)},
	{8, "bit flipped in the zeros behind it", flip(padding)},
	{10, "a second signature section", func(b []byte) []byte {
		var note []byte
		sections(b, func(h []byte) {
			if binary.LittleEndian.Uint64(h[24:])+binary.LittleEndian.Uint64(h[32:]) == uint64(len(b)) {
				note = h
			}
		})
		n := 0
		return sections(b, func(h []byte) {
			if n++; n == 5 {
				copy(h, note)
			}
		})
	}},
	{11, "signature section moved over the header", func(b []byte) []byte {
		return sections(b, func(h []byte) {
			if binary.LittleEndian.Uint64(h[24:])+binary.LittleEndian.Uint64(h[32:]) == uint64(len(b)) {
				binary.LittleEndian.PutUint64(h[24:], 0)
			}
		})
	}},
	{11, "signature section with an offset that overflows", func(b []byte) []byte {
		return sections(b, func(h []byte) {
			if binary.LittleEndian.Uint64(h[24:])+binary.LittleEndian.Uint64(h[32:]) == uint64(len(b)) {
				binary.LittleEndian.PutUint64(h[24:], ^uint64(0)-10)
			}
		})
	}},
	{17, "algorithm number changed", func(b []byte) []byte {
		for i := range 16 { // wherever the number is in the envelope's head
			b[slot(b)+8+i] ^= 7
		}
		return b
	}},
	{18, "truncated after signing", func(b []byte) []byte { return b[:len(b)-512] }},
	{19, "e_shoff = 0", func(b []byte) []byte { binary.LittleEndian.PutUint64(b[40:], 0); return b }},
	{19, "e_shnum = 0xff00", func(b []byte) []byte { binary.LittleEndian.PutUint16(b[60:], 0xff00); return b }},
	{19, "a section of 4 GB", func(b []byte) []byte {
		return sections(b, func(h []byte) { binary.LittleEndian.PutUint64(h[32:], 4<<30) })
	}},
}

func sections(b []byte, each func([]byte)) []byte {
	at, n := shoff(b), int(binary.LittleEndian.Uint16(b[60:]))
	for i := range n {
		each(b[at+64*i : at+64*i+64])
	}
	return b
}

// fill puts into a file system what is there before the enforcer begins.
func (k *kit) fill(dir string) {
	t, r := k.t, k.r
	t.Helper()
	in := func(name string) string { return filepath.Join(dir, name) }
	signed := r.Signed(k.hello, 0)
	Put(t, signed, in("good"))
	Put(t, r.Signed(Compile(t, Hello, "-static"), 0), in("static"))
	Put(t, r.Signed(Compile(t, Hello, "-no-pie"), 0), in("nopie"))
	Put(t, k.hello, in("bad"))
	for i, m := range mutants {
		mutant(t, signed, in(fmt.Sprint("mutant", i)), m.change)
	}
	other := r.Signed(Compile(t, `int main(){return 0;} int more[5000]={1};`), 0)
	mutant(t, signed, in("swapped"), func(b []byte) []byte {
		o, err := os.ReadFile(other)
		if err != nil {
			t.Fatal(err)
		}
		copy(b[slot(b):], o[slot(o):])
		return b
	})
	stripped := Put(t, signed, filepath.Join(t.TempDir(), "stripped"))
	Tool(t, "strip", stripped)
	Put(t, stripped, in("stripped"))
	Put(t, k.by(r.Rogue), in("unknown"))
	Put(t, k.signedWith(func(o *digsig.SignOptions) { o.Expires = r.Issued.Add(time.Minute) }), in("expired"))
	Put(t, k.signedWith(func(o *digsig.SignOptions) { o.Issued = time.Now().Add(24 * time.Hour) }), in("early-sig"))
	for _, name := range []string{"link", "moved", "written", "mapped", "same", "hot"} {
		Put(t, signed, in(name))
	}
	must(t, os.WriteFile(in("code"), Code, 0o755))
}

func (k *kit) by(s *digsig.Signer) string {
	to := Put(k.t, k.hello, filepath.Join(k.t.TempDir(), "p"))
	k.r.SignBy(s, to, 0)
	return to
}

func (k *kit) signedWith(change func(*digsig.SignOptions)) string {
	return k.r.Signed(k.hello, 0, change)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// static are the cases about content alone, on every kind of file system.
func (k *kit) static(b Bed) {
	at := func(name string) string { return filepath.Join(b.Dir, name) }
	for _, n := range []string{"good", "static", "nopie"} {
		k.add(1, "signed and intact: "+n, b.Name, allow, ran(Exec(at(n))))
	}
	k.add(2, "unsigned", b.Name, deny, ran(Exec(at("bad"))))
	for i, m := range mutants {
		k.add(m.number, m.what, b.Name, deny, ran(Exec(at(fmt.Sprint("mutant", i)))))
	}
	k.add(9, "signature of another file", b.Name, deny, ran(Exec(at("swapped"))))
	k.add(12, "signed by an unknown key", b.Name, deny, ran(Exec(at("unknown"))))
	k.add(13, "expired", b.Name, deny, ran(Exec(at("expired"))))
	k.add(13, "not yet valid", b.Name, deny, ran(Exec(at("early-sig"))))
	k.add(18, "stripped after signing", b.Name, deny, ran(Exec(at("stripped"))))
	k.add(1, "signed and intact, again (marked)", b.Name, allow, ran(Exec(at("good"))))
}

// writes are the cases about content that changes under a verdict.
func (k *kit) writes(b Bed) {
	t := k.t
	at := func(name string) string { return filepath.Join(b.Dir, name) }
	if b.Name != "overlay" {
		must(t, os.Link(at("link"), at("link2")))
	}
	must(t, os.Symlink("good", at("symlink")))
	must(t, os.Rename(at("moved"), at("moved2")))
	k.add(28, "by a symbolic link", b.Name, allow, ran(Exec(at("symlink"))))
	k.add(28, "renamed", b.Name, allow, ran(Exec(at("moved2"))))
	if b.Name != "overlay" {
		k.add(28, "by a hard link", b.Name, allow, ran(Exec(at("link2"))))
	}

	if b.Name == "overlay" { // copied up first: an open to read and write of what nobody knows is denied
		for _, n := range []string{"written", "mapped", "same"} {
			must(t, os.Chmod(at(n), 0o750))
		}
	}
	for range 2 { // the second has a mark
		k.add(31, "before write(2)", b.Name, allow, ran(Exec(at("written"))))
	}
	f, err := os.OpenFile(at("written"), os.O_WRONLY, 0)
	must(t, err)
	k.add(31, "while somebody has it open for writing", b.Name, deny, busy(Exec(at("written"))))
	_, err = f.WriteAt([]byte{1}, 0x1008)
	must(t, err)
	must(t, f.Close())
	k.add(31, "after write(2)", b.Name, deny, ran(Exec(at("written"))))

	for range 2 {
		k.add(32, "before a store by a shared mapping", b.Name, allow, ran(Exec(at("mapped"))))
	}
	if o := Exec(filepath.Join(k.tools, "store"), at("mapped"), "1", fmt.Sprint(0x1008)); !o.Ran() {
		t.Errorf("store on %s: %+v", b.Name, o)
	}
	k.add(32, "after a store by a shared mapping", b.Name, deny, ran(Exec(at("mapped"))))

	k.add(34, "before a rewrite with the old times", b.Name, allow, ran(Exec(at("same"))))
	var st unix.Stat_t
	must(t, unix.Stat(at("same"), &st))
	f, err = os.OpenFile(at("same"), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{1}, 0x1008)
	must(t, err)
	must(t, f.Close())
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, at("same"), []unix.Timespec{st.Atim, st.Mtim}, 0))
	k.add(34, "after a rewrite with the old size and times", b.Name, deny, ran(Exec(at("same"))))
	k.race(b)
}

// busy takes ETXTBSY, which the kernel may say first, for a denial.
func busy(o Outcome) string {
	if errors.Is(o.Err, syscall.ETXTBSY) {
		return deny
	}
	return ran(o)
}

// race has a writer put bad content in and take it out again, over and over, while the file is executed. What it does when
// the bad content runs is to exit with another code.
func (k *kit) race(b Bed) {
	t := k.t
	path := filepath.Join(b.Dir, "hot")
	image := k.hot
	must(t, os.WriteFile(path, image, 0o755))
	racer := exec.Command(filepath.Join(k.tools, "racer"), path, fmt.Sprint(k.hotAt))
	in, err := racer.StdinPipe()
	must(t, err)
	must(t, racer.Start())
	wrong, allowed, denied := 0, 0, 0
	for range 300 {
		switch o := Exec(path); {
		case o.Ran():
			allowed++
		case o.Code == 66:
			wrong++
		default:
			denied++
		}
	}
	in.Close()
	must(t, racer.Wait())
	got := deny
	if wrong > 0 {
		got = fmt.Sprintf("%d of 300 ran altered", wrong)
	}
	k.add(33, "a writer between the verdict and the execution", b.Name, deny, got, fmt.Sprintf("(%d allowed, %d denied)", allowed, denied))
}
