package names

import (
	"math/bits"
	"testing"

	"pgregory.net/rapid"
)

type box struct{ node interval[box] }

func newBox(lower, upper uint32) *box {
	b := &box{}
	b.node.lower, b.node.upper, b.node.item = lower, upper, b
	return b
}

// checkTree verifies links, balance and maxima, and returns the items in order.
func checkTree[T any](t interface{ Fatalf(string, ...any) }, tr *tree[T]) []*T {
	var items []*T
	var walk func(v, parent *interval[T]) (h int8, m uint32)
	walk = func(v, parent *interval[T]) (int8, uint32) {
		if v == nil {
			return 0, 0
		}
		if v.parent != parent {
			t.Fatalf("node %d..%d has a wrong parent", v.lower, v.upper)
		}
		lh, lm := walk(v.left, v)
		items = append(items, v.item)
		rh, rm := walk(v.right, v)
		if d := lh - rh; d < -1 || d > 1 {
			t.Fatalf("node %d..%d is out of balance: %d, %d", v.lower, v.upper, lh, rh)
		}
		h, m := max(lh, rh)+1, max(v.upper, lm, rm)
		if v.height != h || v.max != m {
			t.Fatalf("node %d..%d: height %d max %d, want %d %d", v.lower, v.upper, v.height, v.max, h, m)
		}
		return h, m
	}
	walk(tr.root, nil)
	if len(items) != tr.n {
		t.Fatalf("tree has %d items and says %d", len(items), tr.n)
	}
	return items
}

// TestTreeAgainstList compares the tree with a slice into which every new interval is put before the first one whose
// lower bound is not smaller.
func TestTreeAgainstList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tr tree[box]
		var list []*box
		limit := rapid.SampledFrom([]uint32{3, 20, 1000}).Draw(t, "limit")
		draw := func() (uint32, uint32) {
			a, b := rapid.Uint32Range(0, limit).Draw(t, "a"), rapid.Uint32Range(0, limit).Draw(t, "b")
			return min(a, b), max(a, b)
		}
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				b := newBox(draw())
				i := 0
				for i < len(list) && list[i].node.lower < b.node.lower {
					i++
				}
				list = append(list[:i], append([]*box{b}, list[i:]...)...)
				tr.insert(&b.node)
			},
			"remove": func(t *rapid.T) {
				if len(list) == 0 {
					t.Skip("empty")
				}
				i := rapid.IntRange(0, len(list)-1).Draw(t, "i")
				tr.remove(&list[i].node)
				list = append(list[:i], list[i+1:]...)
			},
			"overlaps": func(t *rapid.T) {
				lo, hi := draw()
				v := tr.first(lo, hi)
				for _, b := range list {
					if b.node.lower > hi || b.node.upper < lo {
						continue
					}
					if v != &b.node {
						t.Fatalf("%d..%d: got %v, want %d..%d", lo, hi, v, b.node.lower, b.node.upper)
					}
					v = v.next(lo, hi)
				}
				if v != nil {
					t.Fatalf("%d..%d: one too many: %d..%d", lo, hi, v.lower, v.upper)
				}
			},
			"": func(t *rapid.T) {
				items := checkTree(t, &tr)
				v := tr.begin()
				for i, b := range list {
					if items[i] != b || v != &b.node {
						t.Fatalf("item %d is not the one inserted there", i)
					}
					v = v.succ()
				}
				if v != nil {
					t.Fatalf("succ goes on behind the last")
				}
			},
		})
	})
}

// TestTreeHeight checks that no order of insertion makes the search long.
func TestTreeHeight(t *testing.T) {
	const n = 1 << 14
	orders := map[string]func(i uint32) uint32{
		"ascending":  func(i uint32) uint32 { return i },
		"descending": func(i uint32) uint32 { return n - i },
		"equal":      func(uint32) uint32 { return 7 },
		"zigzag": func(i uint32) uint32 {
			if i%2 == 0 {
				return i
			}
			return n - i
		},
	}
	for name, lower := range orders {
		var tr tree[box]
		for i := range uint32(n) {
			tr.insert(&newBox(lower(i), lower(i)+i).node)
		}
		checkTree(t, &tr)
		if h, limit := int(tr.root.height), bits.Len(n)*3/2; h > limit {
			t.Errorf("%s: height %d, above %d", name, h, limit)
		}
	}
}
