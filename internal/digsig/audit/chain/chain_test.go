package chain

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func make10(t testing.TB) ([][]byte, Head) {
	var b []byte
	var h Head
	for i := range 10 {
		var err error
		b, h, err = Append(b, h, &Record{Time: time.Unix(int64(i), 5), Type: "verdict", Verdict: "deny", Reason: "unsigned", PID: 100 + i, Path: fmt.Sprint("/bin/x", i)})
		if err != nil {
			t.Fatal(err)
		}
	}
	return bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")), h
}

func check(lines [][]byte, want Head) error {
	var c Checker
	for _, l := range lines {
		if _, err := c.Line(l); err != nil {
			return err
		}
	}
	return c.End(want)
}

func TestChain(t *testing.T) {
	lines, h := make10(t)
	if err := check(lines, h); err != nil {
		t.Fatal(err)
	}
	if h.Seq != 10 {
		t.Errorf("the head is number %d", h.Seq)
	}
	if err := check(lines, Head{Seq: 9, Hash: Hash{1}}); err != nil {
		t.Errorf("a head that is one record behind: %v", err)
	}
	var c Checker
	for i, l := range lines {
		r, err := c.Line(l)
		if err != nil || r.PID != 100+i || r.Seq != uint64(i)+1 {
			t.Errorf("line %d: %+v, %v", i, r, err)
		}
	}
	half := Any()
	for _, l := range lines[5:] {
		if _, err := half.Line(l); err != nil {
			t.Errorf("the second half: %v", err)
		}
	}
	if err := half.End(h); err != nil {
		t.Error(err)
	}
}

func TestTamper(t *testing.T) {
	lines, h := make10(t)
	for name, change := range map[string]func([][]byte) [][]byte{
		"one removed":  func(l [][]byte) [][]byte { return slices.Delete(l, 4, 5) },
		"first gone":   func(l [][]byte) [][]byte { return l[1:] },
		"end cut off":  func(l [][]byte) [][]byte { return l[:7] },
		"empty":        func(l [][]byte) [][]byte { return nil },
		"two swapped":  func(l [][]byte) [][]byte { l[2], l[3] = l[3], l[2]; return l },
		"one doubled":  func(l [][]byte) [][]byte { return slices.Insert(l, 3, l[3]) },
		"last changed": func(l [][]byte) [][]byte { l[9] = bytes.Replace(l[9], []byte("deny"), []byte("deni"), 1); return l },
		"blank in":     func(l [][]byte) [][]byte { l[3] = append([]byte(" "), l[3]...); return l },
		"member added": func(l [][]byte) [][]byte { l[3] = bytes.Replace(l[3], []byte("{"), []byte(`{"a":1,`), 1); return l },
		"not JSON":     func(l [][]byte) [][]byte { l[3] = []byte("x"); return l },
		"too long":     func(l [][]byte) [][]byte { l[3] = bytes.Repeat([]byte("x"), MaxLine+1); return l },
	} {
		var own [][]byte
		for _, l := range lines {
			own = append(own, bytes.Clone(l))
		}
		err := check(change(own), h)
		var b *BrokenError
		if !errors.As(err, &b) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Every single octet of the middle of the log.
	for i := 2; i < 8; i++ {
		for at := range lines[i] {
			own := slices.Clone(lines)
			own[i] = bytes.Clone(lines[i])
			own[i][at] ^= 1
			if check(own, h) == nil {
				t.Fatalf("line %d octet %d (%q) changed, and nothing noticed", i+1, at, lines[i])
			}
		}
	}
}

func TestLong(t *testing.T) {
	var h Head
	for _, r := range []Record{
		{Type: "verdict", Detail: strings.Repeat("\x00", MaxLine)},
		{Type: "verdict", Path: strings.Repeat("<", MaxLine)},
	} {
		b, _, err := Append(nil, h, &r)
		if err != nil || len(b) > MaxLine+1 {
			t.Fatalf("%d octets, %v", len(b), err)
		}
		var c Checker
		if _, err := c.Line(bytes.TrimSuffix(b, []byte("\n"))); err != nil {
			t.Error(err)
		}
	}
}

func FuzzLine(f *testing.F) {
	lines, _ := make10(f)
	f.Add(lines[0], lines[1])
	f.Add([]byte(`{"seq":1}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		c, d := Checker{}, Any()
		if _, err := c.Line(a); err == nil {
			if _, err := c.Line(b); err == nil && c.Head.Seq != 2 {
				t.Fatal("counted wrong")
			}
		}
		_, _ = d.Line(b)
	})
}
