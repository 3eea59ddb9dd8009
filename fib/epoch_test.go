package fib

import (
	"fmt"
	"testing"

	"midplane/internal/fib/image"
)

// What a reader may remember on its way down, a default route or what a shorter prefix has for all below it, is changed
// where it is. The epoch must change with it, before the next change: a reader that is stopped between the old one and a
// longer prefix that goes meanwhile would take the old one for the answer (DEF_NO_BUMP and DEFAULT_NO_BUMP of
// internal/fib/model). No test with readers meets that moment, so this one looks at the epoch.
func TestChangesInPlaceChangeTheEpoch(t *testing.T) {
	for _, routes := range []int{0, 2000, 120_000} { // all shapes of the root
		s := must(New(nil))
		f := must(s.Create(1, ""))
		a, b := must(s.AddNextHop(via("", 1))), must(s.AddNextHop(via("", 2)))
		for i := range routes {
			insert(t, f, fmt.Sprintf("%d.%d.%d.0/24", 11+i>>16, i>>8&255, i&255), a)
		}
		insert(t, f, "10.1.2.3/32", a)
		for _, p := range []string{"0.0.0.0/0", "10.0.0.0/9", "10.0.0.0/15", "10.1.0.0/20"} {
			for _, step := range []struct {
				what string
				do   func()
			}{
				{"insert", func() { insert(t, f, p, a) }},
				{"replace", func() { insert(t, f, p, b) }},
				{"delete", func() { f.Delete(pfx(p)) }},
			} {
				before := s.im.Load(f.desc.Load() + image.DescEpoch)
				step.do()
				if s.im.Load(f.desc.Load()+image.DescEpoch) == before {
					t.Errorf("with %d more routes: %s of %s: the epoch is as before", routes, step.what, p)
				}
			}
		}
		s.Close()
	}
}
