package kernel

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"midplane/fib"
	"midplane/internal/fib/binding"
	"midplane/internal/lab"
	"midplane/internal/sys"
)

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	k, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); !errors.Is(err, fib.ErrInUse) {
		t.Errorf("twice: %v", err)
	}
	var bad *fib.FieldError
	if _, err := k.Apply(t.Context(), []FIB{{ID: 254}}); !errors.As(err, &bad) || bad.Field != "id" {
		t.Error(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Apply(t.Context(), nil); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		file string
		want string // in the error; "" none
	}{
		"broken":            {`{"version":`, "remove it"},
		"unknown":           {`{"version":1,"more":1}`, "remove it"},
		"version":           {`{"version":9}`, "version"},
		"another boot":      {`{"version":1,"boot":"x","netns":5,"record":{"fibs":[{"id":10}]}}`, ""},
		"another namespace": {`{"version":1,"boot":"` + boot + `","netns":5,"record":{"fibs":[{"id":10}]}}`, "netns"},
	} {
		if err := os.WriteFile(filepath.Join(dir, recordFile), []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := Open(Config{Dir: dir})
		if err == nil {
			if l := k.FIBs(); len(l) > 0 {
				t.Errorf("%s: FIBs %v", name, l)
			}
			_ = k.Close()
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(Config{Dir: dir, Netns: filepath.Join(dir, "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// A name in a record that is no name does not become a path.
func TestRecordIsChecked(t *testing.T) {
	k := &Kernel{netns: 7}
	boot, _ := bootID()
	for _, r := range []string{`"spaces":["../x"]`, `"links":{"a/b":1}`, `"parked":{"..":{}}`, `"settings":{"kernel/x":"1"}`, `"settings":{"net/../x":"1"}`, `"fibs":[{"id":0}]`} {
		if err := k.parseRecord("f", []byte(`{"version":1,"boot":"`+boot+`","netns":7,"record":{`+r+`}}`)); err == nil {
			t.Errorf("%s was taken", r)
		}
	}
}

// Each back end works or says which feature of which kernel is missing, and trying leaves nothing.
func TestIntegrationProbe(t *testing.T) {
	s := newSite(t, 1)
	before := settled(t, s.box.Name())
	works := map[Backend]bool{}
	for _, p := range s.k.Probe() {
		var u *sys.UnsupportedError
		if p.Err != nil && (!errors.As(p.Err, &u) || u.Feature == "" || u.MinKernel == "") {
			t.Errorf("%s: %v", p.Backend, p.Err)
		}
		works[p.Backend] = p.Err == nil
		t.Logf("%s: %v", p.Backend, p.Err)
	}
	if len(works) != 3 || !works[Netns] {
		t.Errorf("works: %v", works)
	}
	first := backends[slices.IndexFunc(backends, func(b Backend) bool { return works[b] })]
	s.apply(t, FIB{ID: 10, Ports: []Port{{Device: "p0"}}})
	if l := s.k.FIBs(); len(l) != 1 || l[0].Backend != first {
		t.Errorf("%v, want %s", l, first)
	}
	if !works[VRF] {
		if _, err := s.k.Apply(t.Context(), []FIB{{ID: 10, Backend: VRF}}); !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
	}
	s.remove(t, before)
}

// Without its record, what this package made is found by what it is marked with.
func TestIntegrationOrphans(t *testing.T) {
	s := newSite(t, 2)
	before := settled(t, s.box.Name())
	fibs := two(Rules)
	fibs[1].Backend = Netns
	fibs[0].Ports[0].Addresses, fibs[1].Ports[0].Addresses = nil, nil
	s.apply(t, fibs...)
	if _, err := s.k.SyncRoutes(t.Context(), 10, slices.Values([]Route{{Prefix: prefixes("10.0.0.0/8")[0], Type: fib.Blackhole}})); err != nil {
		t.Fatal(err)
	}
	// A namespace of ours for another home is not touched.
	other, err := Open(Config{Dir: t.TempDir(), NetnsDir: s.config().NetnsDir, Netns: "/run/netns/" + s.hosts[0].Name()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Apply(t.Context(), []FIB{{ID: 99, Name: "others", Backend: Netns}}); err != nil {
		t.Fatal(err)
	}
	if err := s.k.Close(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(s.dir, recordFile)), binding.Remove(s.dir)); err != nil {
		t.Fatal(err)
	}
	s.open(t)
	r, err := s.k.Recover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := strings.Join(r.Orphans, "\n")
	for _, want := range []string{"namespace blue", "routes of table 10", "iif p0", "classifier on p0", "group of p0"} {
		if !strings.Contains(found, want) {
			t.Errorf("not found: %s in\n%s", want, found)
		}
	}
	if strings.Contains(found, "others") {
		t.Error("took another's for an orphan")
	}
	if _, err := other.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	_ = other.Close()
	if again, err := s.k.Recover(t.Context()); err != nil || len(again.Orphans)+len(again.Operations) > 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	// How ports and settings were is lost with the record; the rest is as before.
	now := settled(t, s.box.Name())
	for _, k := range []string{"rule-4", "rule-6", "mrule-4", "mrule-6", "qdisc"} {
		if !slices.Equal(before[k].([]string), now[k].([]string)) {
			t.Errorf("%s: %v, before %v", k, now[k], before[k])
		}
	}
	for _, k := range []string{"route-4", "route-6"} {
		for _, l := range now[k].([]string) {
			if strings.Contains(l, `"table":"10"`) {
				t.Errorf("left: %s", l)
			}
		}
	}
}

// Cancelling ends an Apply between two operations; the next one goes on.
func TestIntegrationCancel(t *testing.T) {
	s := newSite(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.k.Apply(ctx, two(Rules)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.apply(t, two(Rules)...)
	// A port whose device goes away fails the next Apply and not the next Recover.
	s.box.IP("link", "del", "p1")
	if _, ok := lab.Until(lab.Patience, func() bool { _, err := s.k.Apply(t.Context(), two(Rules)); return err != nil }); !ok {
		t.Error("the device is gone, and nobody says so")
	}
	if r, err := s.k.Recover(t.Context()); err != nil || !slices.Equal(r.Missing, []string{"p1"}) || len(r.Adopted) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}
