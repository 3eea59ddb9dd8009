package neigh

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"midplane/internal/mono"
)

// slow is a Table that looks at everything each time.
type slow struct {
	m           map[Key]Entry
	expires     map[Key]mono.Time // of what was learned
	max, perFIB int
}

func (s *slow) room(k Key) bool {
	if _, there := s.m[k]; there {
		return true
	}
	n := 0
	for o := range s.m {
		if o.FIB == k.FIB {
			n++
		}
	}
	return len(s.m) < s.max && n < s.perFIB
}

func TestTableIsAsTheSlowOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &slow{map[Key]Entry{}, map[Key]mono.Time{}, rapid.IntRange(1, 12).Draw(t, "max"), rapid.IntRange(1, 6).Draw(t, "perFIB")}
		f := &Table{Max: s.max, PerFIB: s.perFIB}
		now := mono.Time(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			k := Key{uint32(rapid.IntRange(1, 3).Draw(t, "fib")), uint32(rapid.IntRange(1, 2).Draw(t, "device")), netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(1, 4).Draw(t, "ip"))})}
			e := Entry{Key: k, MAC: MAC{2, byte(rapid.IntRange(0, 2).Draw(t, "mac"))}, State: rapid.SampledFrom([]State{Reachable, Stale, Failed}).Draw(t, "state")}
			_, learned := s.expires[k]
			old, there := s.m[k]
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0, 1:
				_, changed := f.Handle(Event{Set, e})
				if room := s.room(k); room {
					if changed != (!there || old != e) {
						t.Fatalf("changed %v", changed)
					}
					s.m[k] = e
					delete(s.expires, k)
				}
			case 2:
				_, changed := f.Handle(Event{Gone, Entry{Key: k}})
				if changed != (there && !learned) {
					t.Fatalf("gone: %v", changed)
				}
				if changed {
					delete(s.m, k)
				}
			case 3:
				age := time.Duration(rapid.IntRange(0, 30).Draw(t, "age"))
				f.Learn(now, e, age)
				if !(there && !learned && old.State.Usable()) && s.room(k) {
					s.m[k], s.expires[k] = e, now.Add(age)
				}
			case 4:
				if _, ok := f.Forget(k); ok != (there && learned) {
					t.Fatalf("forget: %v", ok)
				}
				if learned {
					delete(s.m, k)
					delete(s.expires, k)
				}
			case 5:
				now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "time")))
				gone := f.Expire(now)
				n := 0
				for o, at := range s.expires {
					if at <= now {
						delete(s.m, o)
						delete(s.expires, o)
						n++
					}
				}
				if len(gone) != n {
					t.Fatalf("expired %d, want %d", len(gone), n)
				}
			}
			next := mono.Never
			for _, at := range s.expires {
				next = next.Min(at)
			}
			if f.Deadline() != next || f.Len() != len(s.m) {
				t.Fatalf("deadline %v, want %v; %d entries, want %d", f.Deadline(), next, f.Len(), len(s.m))
			}
			for o, want := range s.m {
				if got, ok := f.Get(o); !ok || got != want {
					t.Fatalf("%v: %v %v, want %v", o, got, ok, want)
				}
			}
		}
		l := f.List(0)
		if len(l) != len(s.m) || !slices.IsSortedFunc(l, func(a, b Entry) int { return Compare(a.Key, b.Key) }) {
			t.Fatalf("list: %v", l)
		}
		if gone := f.Clear(1); len(f.List(1)) != 0 || f.Len()+len(gone) != len(l) {
			t.Fatalf("clear: %v", gone)
		}
	})
}

// One FIB's neighbours cannot take the room of another's.
func TestTableIsBounded(t *testing.T) {
	f := &Table{Max: 100, PerFIB: 10}
	for i := range 50 {
		f.Learn(0, Entry{Key: Key{1, 1, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}, State: Reachable}, time.Hour)
	}
	if f.Len() != 10 || f.Refused() != 40 {
		t.Errorf("%d entries, %d refused", f.Len(), f.Refused())
	}
	if _, ok := f.Learn(0, Entry{Key: Key{FIB: 2}}, time.Hour); !ok {
		t.Error("no room for FIB 2")
	}
}

func TestWords(t *testing.T) {
	for s, want := range map[State]string{0: "NONE", Reachable: "REACHABLE", Permanent | Stale: "STALE|PERMANENT"} {
		if s.String() != want {
			t.Errorf("%d: %s", s, s)
		}
	}
	if s := fmt.Sprint(MAC{2, 0, 0, 0, 0, 0xff}); s != "02:00:00:00:00:ff" {
		t.Error(s)
	}
	if Failed.Usable() || Incomplete.Usable() || !Probe.Usable() {
		t.Error("usable")
	}
}
