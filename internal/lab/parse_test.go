//go:build linux

package lab

import (
	"bufio"
	"context"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestSkipFailsOnlyForRootUnderCI(t *testing.T) {
	for _, c := range []struct {
		ci   string
		uid  int
		want bool
	}{{"true", 0, true}, {"true", 1000, false}, {"", 0, false}, {"1", 0, false}} {
		if got := skipFails(c.ci, c.uid); got != c.want {
			t.Errorf("CI=%q uid %d: %v", c.ci, c.uid, got)
		}
	}
}

func TestParseNodes(t *testing.T) {
	got := parseNodes("Node Identity                    Hash     State\n" +
		"g3                               67330000 up\n" +
		"0102030405060708090a0b0c0d0e0f10 08080808 down\n" +
		"                                 01001002 up\n")
	want := map[uint32]bool{0x67330000: true, 0x08080808: false, 0x01001002: true}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestParseNameTable(t *testing.T) {
	got, err := parseNameTable("Type       Lower      Upper      Scope    Port       Node                             \n" +
		"0          1731330048 1731330048 cluster  0          g2                                \n" +
		"1          1          1          node     3839752148 g2                                \n")
	want := []Publication{
		{Lower: 1731330048, Upper: 1731330048, Scope: "cluster", Identity: "g2"},
		{Type: 1, Lower: 1, Upper: 1, Scope: "node", Port: 3839752148, Identity: "g2"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if _, err := parseNameTable("1 1 4294967296 node 7 g2\n"); err == nil {
		t.Error("a number above 32 bits was read")
	}
}

func TestReadDissection(t *testing.T) {
	d := readDissection(bufio.NewScanner(strings.NewReader(`Frame 5: 118 bytes on wire
Transparent Inter Process Communication(TIPC)
    ...1 101. = User: Neighbour Discovery Protocol (13)
    010. .... = Message type: Unknown (2)

Frame 6: 60 bytes on wire
    .... .... = User: Neighbour Discovery Protocol (13)
    111. .... = Message type: Unknown (7)
Frame 7: 60 bytes on wire
    .... .... = User: Link State Maintenance Protocol (7)
    010. .... = Message type: Unknown (2)
Frame 8: 60 bytes on wire
[Malformed Packet: TIPC]
Frame 9: 60 bytes on wire
    .... .... = User: Low priority data (0)
`)))
	if d.TIPC != 5 || d.Trials != 1 || len(d.Suspicious) != 3 {
		t.Errorf("%d frames, %d trials, suspicious %q; want 5, 1, and frames 6 to 8", d.TIPC, d.Trials, d.Suspicious)
	}
	for i, frame := range []string{"Frame 6", "Frame 7", "Frame 8"} {
		if i < len(d.Suspicious) && !strings.HasPrefix(d.Suspicious[i], frame) {
			t.Errorf("suspicious line %q, want one of %s", d.Suspicious[i], frame)
		}
	}
}

// TestArchive has the real cpio list what our writer wrote.
func TestArchive(t *testing.T) {
	RequireTool(t, "cpio", "cpio")
	var c cpio
	c.dir("dev")
	c.console("dev/console")
	c.file("init", []byte("hello"))
	cmd := exec.Command("cpio", "-itv", "--quiet")
	cmd.Stdin = strings.NewReader(string(c.bytes()))
	out, err := cmd.CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 3 || !strings.HasPrefix(lines[0], "drwxr-xr-x") || !strings.HasPrefix(lines[1], "crw") ||
		!strings.Contains(lines[1], "5,   1") || !strings.HasPrefix(lines[2], "-rwxr-xr-x") || !strings.HasSuffix(lines[2], "init") {
		t.Errorf("cpio lists, %v:\n%s", err, out)
	}
}

func TestOutputLines(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	o := newOutput()
	_, _ = o.Write([]byte("one\ntw"))
	if l, err := o.Line(ctx); l != "one" || err != nil {
		t.Errorf("%q, %v", l, err)
	}
	next := make(chan string)
	go func() { l, _ := o.Line(ctx); next <- l }()
	_, _ = o.Write([]byte("o\nthree"))
	if l := <-next; l != "two" {
		t.Errorf("a line in two writes reads %q", l)
	}
	cancel()
	if _, err := o.Line(ctx); err == nil {
		t.Error("a line without end was returned while its program runs")
	}
	o.close()
	if l, err := o.Line(context.Background()); l != "three" || err != nil {
		t.Errorf("the last line, without end: %q, %v", l, err)
	}
	if _, err := o.Line(context.Background()); err != io.EOF {
		t.Errorf("after the last line: %v, want EOF", err)
	}
	if o.String() != "one\ntwo\nthree" {
		t.Errorf("in all %q", o)
	}
}
