// Command digsig measures signing and verifying beside sha256sum of coreutils, and openssl where it is installed, on signed
// copies of this machine's own programs and libraries. All contenders run in each round, one after the other, on the same
// files, which are in the page cache; "cold" means that no verdict is kept. What is printed are medians of the rounds, and
// of the ratios within the rounds. Times are processor times, so that other programs on the machine are in the numbers only
// by what they do to caches; those of other programs begin with their start, which costs about a millisecond.
//
//	cd bench && go run ./digsig [-rounds 7] [-quick] [-from /usr] [-size 400]
package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"

	"midplane/bench/internal/stat"
	"midplane/digsig"
)

var (
	rounds = flag.Int("rounds", 7, "rounds; medians are reported")
	quick  = flag.Bool("quick", false, "half of the files in three rounds: to see that it runs, not for numbers")
	from   = flag.String("from", "/usr", "where the files are copied from")
	size   = flag.Int("size", 400, "MB of files")
)

var now = time.Now()

func main() {
	flag.Parse()
	if *quick {
		*rounds, *size = min(*rounds, 3), *size/2
	}
	dir, err := os.MkdirTemp("", "digsig-bench")
	check(err)
	defer os.RemoveAll(dir)
	if err := run(dir); err != nil {
		fmt.Fprintln(os.Stderr, "digsig:", err)
		os.RemoveAll(dir)
		os.Exit(1)
	}
	if missed > 0 {
		fmt.Printf("\n%d goals MISSED\n", missed)
		os.RemoveAll(dir)
		os.Exit(2)
	}
	fmt.Println("\nall goals REACHED")
}

var missed int

func run(dir string) error {
	key, err := digsig.NewSigner(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	if err != nil {
		return err
	}
	trust, err := digsig.NewTrustStore(&digsig.Key{Public: key.Public(), Purposes: digsig.AllPurposes, Roles: digsig.AllRoles})
	if err != nil {
		return err
	}
	v, err := digsig.NewVerifier(digsig.Config{Trust: trust, Now: now})
	if err != nil {
		return err
	}
	files, total, err := copies(dir, key)
	if err != nil {
		return err
	}
	fmt.Printf("%d signed ELF files of %.0f MB, median %d KB, biggest %.0f MB; %s, %d processors; %d rounds\n", len(files), float64(total)/1e6,
		files[len(files)/2].size>>10, float64(files[len(files)-1].size)/1e6, runtime.Version(), runtime.GOMAXPROCS(0), *rounds)
	if err := compare("all files, one after the other", v, files, total); err != nil {
		return err
	}
	biggest := files[len(files)-1:]
	if err := compare("the biggest file", v, biggest, biggest[0].size); err != nil {
		return err
	}
	if err := tree(dir, v, key, files, total); err != nil {
		return err
	}
	return cached(v, files[len(files)/2])
}

type file struct {
	name string
	size int64
}

// copies signs copies of ELF files until there is enough of them: every one in the order of their digests, so that all sizes
// are there, and the biggest.
func copies(dir string, key *digsig.Signer) ([]file, int64, error) {
	var all []file
	err := filepath.WalkDir(*from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil && info.Size() > 256 && info.Size() < 200<<20 && elf(path) {
			all = append(all, file{path, info.Size()})
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	if len(all) == 0 {
		return nil, 0, fmt.Errorf("no ELF file under %s", *from)
	}
	slices.SortFunc(all, func(a, b file) int { return int(b.size - a.size) })
	rest := all[1:]
	slices.SortFunc(rest, func(a, b file) int {
		x, y := sha256.Sum256([]byte(a.name)), sha256.Sum256([]byte(b.name))
		return bytes.Compare(x[:], y[:])
	})
	var out []file
	var total int64
	for i, f := range all {
		if total > int64(*size)*1e6 {
			break
		}
		to := filepath.Join(dir, fmt.Sprintf("%05d", i))
		if err := sign(f.name, to, key); err != nil {
			var cannot *digsig.CannotEmbedError
			if errors.As(err, &cannot) {
				os.Remove(to)
				continue
			}
			return nil, 0, err
		}
		info, err := os.Stat(to)
		if err != nil {
			return nil, 0, err
		}
		out = append(out, file{to, info.Size()})
		total += info.Size()
	}
	slices.SortFunc(out, func(a, b file) int { return int(a.size - b.size) })
	return out, total, nil
}

func elf(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var b [4]byte
	_, err = io.ReadFull(f, b[:])
	return err == nil && string(b[:]) == "\x7fELF"
}

func sign(from, to string, key *digsig.Signer) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	defer w.Close()
	_, err = digsig.Embed(context.Background(), w, f, info.Size(), digsig.Template{Issued: now}, key)
	return err
}

// contender is one way to go through files; it returns the processor time that it took.
type contender struct {
	name string
	run  func([]file) (time.Duration, error)
}

func ours(v *digsig.Verifier) contender {
	return contender{"digsig verify", own(func(files []file) error {
		for _, f := range files {
			if got := v.VerifyFile(context.Background(), f.name, digsig.Request{Use: digsig.UseAny, At: now}); !got.Allow {
				return fmt.Errorf("%s: %s", f.name, got)
			}
		}
		return nil
	})}
}

// own measures a function of this process.
func own(f func([]file) error) func([]file) (time.Duration, error) {
	return func(files []file) (time.Duration, error) {
		before := used(syscall.RUSAGE_SELF)
		err := f(files)
		return used(syscall.RUSAGE_SELF) - before, err
	}
}

// program measures another program that takes the files as arguments.
func program(name string, args ...string) contender {
	return contender{name, func(files []file) (time.Duration, error) {
		all := slices.Clone(args)
		for _, f := range files {
			all = append(all, f.name)
		}
		before := used(syscall.RUSAGE_CHILDREN)
		out, err := exec.Command(all[0], all[1:]...).Output()
		if err == nil && bytes.Count(out, []byte("\n")) != len(files) {
			err = fmt.Errorf("%s: not one line for each file", name)
		}
		return used(syscall.RUSAGE_CHILDREN) - before, err
	}}
}

func used(who int) time.Duration {
	var u syscall.Rusage
	check(syscall.Getrusage(who, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// floor is what cannot be avoided: SHA-256 of all octets, by the same library.
var floor = contender{"Go's SHA-256 alone", own(func(files []file) error {
	b := make([]byte, 256<<10)
	for _, f := range files {
		r, err := os.Open(f.name)
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{r}, b)
		r.Close()
		if err != nil {
			return err
		}
		h.Sum(nil)
	}
	return nil
})}

// compare lets all contenders take turns on the files.
func compare(what string, v *digsig.Verifier, files []file, total int64) error {
	fmt.Printf("\n%s\n", what)
	list := []contender{ours(v), program("sha256sum", "sha256sum"), floor}
	if _, err := exec.LookPath("openssl"); err == nil {
		list = append(list, program("openssl dgst -sha256", "openssl", "dgst", "-sha256", "-r"))
	}
	times := make([][]float64, len(list))
	for round := range *rounds + 1 {
		for i, c := range list {
			runtime.GC()
			d, err := c.run(files)
			if err != nil {
				return err
			}
			if round > 0 { // the first fills the page cache
				times[i] = append(times[i], d.Seconds())
			}
		}
	}
	for i, c := range list {
		line := fmt.Sprintf("  %-22s %8.1f ms %7.0f MB/s", c.name, 1e3*stat.Median(times[i]), float64(total)/1e6/stat.Median(times[i]))
		if i > 0 {
			line += fmt.Sprintf("   verify takes %.2f times as long", stat.Ratio(times[0], times[i]))
		}
		if c.name == "sha256sum" {
			line += "   " + goal(stat.Ratio(times[0], times[i]) <= 1.15, "at most 1.15")
		}
		fmt.Println(line)
	}
	return nil
}

// tree compares VerifyTree by all processors with one goroutine's SHA-256 of the same files, by the clock, and signing with
// verifying.
func tree(dir string, v *digsig.Verifier, key *digsig.Signer, files []file, total int64) error {
	fmt.Printf("\nthe tree, by the clock (others on the machine count)\n")
	workers := runtime.GOMAXPROCS(0)
	var verify, hash, sign []float64
	for round := range *rounds + 1 {
		begin := time.Now()
		n := 0
		if err := v.VerifyTree(context.Background(), dir, digsig.Request{Use: digsig.UseAny, At: now}, digsig.TreeOptions{}, func(_ string, got digsig.Verdict) {
			if got.Allow {
				n++
			}
		}); err != nil {
			return err
		}
		if n != len(files) {
			return fmt.Errorf("%d of %d files are good", n, len(files))
		}
		a := time.Since(begin).Seconds()
		begin = time.Now()
		if _, err := digsig.ManifestTree(context.Background(), dir, digsig.Template{}, digsig.TreeOptions{}, nil); err != nil {
			return err
		}
		b := time.Since(begin).Seconds()
		begin = time.Now()
		done, err := digsig.SignTree(context.Background(), dir, digsig.SignOptions{Template: digsig.Template{Issued: now}}, digsig.TreeOptions{}, key)
		if err != nil || done.Embedded != len(files) {
			return fmt.Errorf("%d of %d files were signed: %w", done.Embedded, len(files), err)
		}
		c := time.Since(begin).Seconds()
		if round > 0 {
			verify, hash, sign = append(verify, a), append(hash, b), append(sign, c)
		}
	}
	for _, x := range []struct {
		name  string
		times []float64
	}{{"VerifyTree", verify}, {"ManifestTree", hash}, {"SignTree", sign}} {
		fmt.Printf("  %-22s %8.1f ms %7.0f MB/s by %d workers   %.2f times ManifestTree, which only reads and hashes\n", x.name, 1e3*stat.Median(x.times), float64(total)/1e6/stat.Median(x.times), workers, stat.Ratio(x.times, hash))
	}
	return nil
}

// cached measures what a renewed verdict costs.
func cached(v *digsig.Verifier, f file) error {
	got := v.VerifyFile(context.Background(), f.name, digsig.Request{Use: digsig.UseAny, At: now})
	const n = 100_000
	var times []float64
	for range *rounds {
		before := used(syscall.RUSAGE_SELF)
		for range n {
			if again := v.Recheck(got, digsig.UseExec, now); again.Generation == 0 {
				return errors.New("no verdict")
			}
		}
		times = append(times, float64(used(syscall.RUSAGE_SELF)-before)/n)
	}
	fmt.Printf("\na verdict that is renewed without reading: %.2f µs\n", stat.Median(times)/1e3)
	return nil
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func goal(reached bool, want string) string {
	if reached {
		return "REACHED " + want
	}
	missed++
	return "MISSED " + want
}
