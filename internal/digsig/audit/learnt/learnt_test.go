package learnt

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"midplane/internal/digsig/audit/chain"
)

func TestCollector(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(int64(n), 0).UTC() }
	zero, user := 0, 1000
	seen := func(n int, path, digest string, change func(*chain.Record)) chain.Record {
		r := chain.Record{Time: at(n), Type: "verdict", Verdict: "would-deny", Reason: "unsigned", Mode: "learn", Path: path, Digest: digest, Use: "exec", Exe: "/bin/sh", Cgroup: "/a", UID: &zero}
		if change != nil {
			change(&r)
		}
		return r
	}
	records := []chain.Record{
		{Type: "start", Mode: "learn"},
		seen(1, "/b", "11", nil),
		seen(2, "/a", "22", func(r *chain.Record) { r.Use = "lib|exec" }),
		seen(3, "/b", "11", func(r *chain.Record) {
			r.Use, r.Exe, r.Cgroup, r.UID, r.Reason = "open", "/bin/cp", "/", &user, "role missing"
		}),
		seen(4, "/b", "33", nil), // another content
		seen(5, "/c", "44", func(r *chain.Record) { r.Mode = "permissive" }),
		seen(6, "/d", "55", func(r *chain.Record) { r.Verdict = "deny" }),
		seen(7, "/e", "55", func(r *chain.Record) { r.Verdict = "allow" }),
		seen(8, "/f", "", nil),
		seen(9, "memfd:x", "66", nil),
		{Type: "lost", Count: 7},
		{Type: "file", Path: "/g", Digest: "77"},
	}
	b, a, old := &File{"/b", "33", []string{"exec"}, []string{"unsigned"}, []string{"/bin/sh"}, []string{"/a"}, []int{0}, 1, at(4), at(4)},
		&File{"/a", "22", []string{"exec", "lib"}, []string{"unsigned"}, []string{"/bin/sh"}, []string{"/a"}, []int{0}, 1, at(2), at(2)},
		&File{"/b", "11", []string{"exec", "open"}, []string{"role missing", "unsigned"}, []string{"/bin/cp", "/bin/sh"}, []string{"/", "/a"}, []int{0, 1000}, 2, at(1), at(3)}
	var c Collector
	for i := range records {
		c.Add(&records[i])
	}
	if got, want := c.Files(), []*File{a, b, old}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", show(got), show(want))
	}
	if c.Other != 1 || c.Nameless != 2 || c.Full != 0 || c.Lost != 7 {
		t.Errorf("%+v", c)
	}
	c = Collector{Permissive: true}
	for i := range records {
		c.Add(&records[i])
	}
	if got := c.Files(); len(got) != 4 || got[3].Path != "/c" || c.Other != 0 {
		t.Errorf("%v", show(got))
	}
}

func TestBounds(t *testing.T) {
	var c Collector
	add := func(path string, i int) {
		c.Add(&chain.Record{Type: "verdict", Verdict: "would-deny", Mode: "learn", Path: path, Digest: "00", Exe: fmt.Sprint(i), Cgroup: fmt.Sprint(i), UID: &i})
	}
	for i := range 100 {
		add("/x", i)
	}
	if f := c.Files()[0]; len(f.By) != 16 || len(f.Cgroups) != 16 || len(f.UIDs) != 16 || f.Count != 100 {
		t.Errorf("%+v", f)
	}
	for i := range MaxFiles + 5 {
		add(fmt.Sprintf("/%d", i), 0)
	}
	if n := len(c.Files()); n != MaxFiles || c.Full != 6 {
		t.Errorf("%d files, %d too many", n, c.Full)
	}
}

func show(files []*File) (s string) {
	for _, f := range files {
		s += fmt.Sprintf("\n%+v", *f)
	}
	return s
}
