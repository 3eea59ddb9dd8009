package names

// tree is an AVL tree of closed intervals, sorted by lower bound, with the largest upper bound of each subtree kept in
// its root. Intervals may overlap and may be equal. Of intervals with equal lower bounds the one inserted last comes
// first, as in the kernel's tree (net/tipc/name_table.c tipc_service_create_range).
//
// Nodes are parts of the items, so the tree itself never allocates. Insert, remove and the search for the first
// overlapping interval take O(log n) steps for every input.
type tree[T any] struct {
	root *interval[T]
	n    int
}

type interval[T any] struct {
	lower, upper        uint32
	max                 uint32 // largest upper in this subtree
	height              int8
	parent, left, right *interval[T]
	item                *T
}

func (t *tree[T]) empty() bool { return t.root == nil }

// insert adds v, whose bounds and item are set.
func (t *tree[T]) insert(v *interval[T]) {
	v.parent, v.left, v.right = nil, nil, nil
	v.max, v.height = v.upper, 1
	t.n++
	if t.root == nil {
		t.root = v
		return
	}
	p := t.root
	for {
		if v.lower <= p.lower {
			if p.left == nil {
				p.left = v
				break
			}
			p = p.left
		} else {
			if p.right == nil {
				p.right = v
				break
			}
			p = p.right
		}
	}
	v.parent = p
	t.rebalance(p)
}

// remove takes v, which is in t, out.
func (t *tree[T]) remove(v *interval[T]) {
	t.n--
	var from, moved *interval[T] // lowest node whose subtree changed; the one that took v's place
	switch {
	case v.left == nil:
		from = v.parent
		t.replace(v, v.right)
	case v.right == nil:
		from = v.parent
		t.replace(v, v.left)
	default:
		s := v.right
		for s.left != nil {
			s = s.left
		}
		from, moved = s, s
		if s.parent != v {
			from = s.parent
			t.replace(s, s.right)
			s.right = v.right
			s.right.parent = s
		}
		t.replace(v, s)
		s.left = v.left
		s.left.parent = s
		s.height, s.max = v.height, v.max // what the nodes above have seen here
	}
	v.parent, v.left, v.right = nil, nil, nil
	t.rebalance(from)
	t.rebalance(moved) // the first call may have stopped below it
}

// replace puts w, which may be nil, where v is.
func (t *tree[T]) replace(v, w *interval[T]) {
	p := v.parent
	switch {
	case p == nil:
		t.root = w
	case p.left == v:
		p.left = w
	default:
		p.right = w
	}
	if w != nil {
		w.parent = p
	}
}

func height[T any](v *interval[T]) int8 {
	if v == nil {
		return 0
	}
	return v.height
}

// update recomputes what v keeps about its subtree and reports whether anything changed.
func (v *interval[T]) update() bool {
	h, m := int8(0), v.upper
	if l := v.left; l != nil {
		h, m = l.height, max(m, l.max)
	}
	if r := v.right; r != nil {
		h, m = max(h, r.height), max(m, r.max)
	}
	h++
	changed := v.height != h || v.max != m
	v.height, v.max = h, m
	return changed
}

// rebalance restores height, max and balance from v up to the root, or until nothing changes any more.
func (t *tree[T]) rebalance(v *interval[T]) {
	for v != nil {
		changed := v.update()
		switch b := height(v.left) - height(v.right); {
		case b > 1:
			if height(v.left.left) < height(v.left.right) {
				t.rotateLeft(v.left)
			}
			v = t.rotateRight(v)
			changed = true
		case b < -1:
			if height(v.right.right) < height(v.right.left) {
				t.rotateRight(v.right)
			}
			v = t.rotateLeft(v)
			changed = true
		}
		if !changed {
			return
		}
		v = v.parent
	}
}

// rotateLeft makes v's right child the root of v's subtree and returns it.
func (t *tree[T]) rotateLeft(v *interval[T]) *interval[T] {
	r := v.right
	t.replace(v, r)
	v.right = r.left
	if v.right != nil {
		v.right.parent = v
	}
	r.left = v
	v.parent = r
	v.update()
	r.update()
	return r
}

// rotateRight makes v's left child the root of v's subtree and returns it.
func (t *tree[T]) rotateRight(v *interval[T]) *interval[T] {
	l := v.left
	t.replace(v, l)
	v.left = l.right
	if v.left != nil {
		v.left.parent = v
	}
	l.right = v
	v.parent = l
	v.update()
	l.update()
	return l
}

// first returns the first interval that overlaps lower..upper, or nil.
func (t *tree[T]) first(lower, upper uint32) *interval[T] {
	return firstIn(t.root, lower, upper)
}

func firstIn[T any](v *interval[T], lower, upper uint32) *interval[T] {
	if v == nil || v.max < lower {
		return nil
	}
	for v != nil {
		if l := v.left; l != nil && l.max >= lower {
			// Something on the left reaches up to lower. If it begins behind upper, so does all that follows it.
			v = l
			continue
		}
		if v.lower > upper {
			return nil
		}
		if v.upper >= lower {
			return v
		}
		v = v.right
	}
	return nil
}

// next returns the first interval behind v that overlaps lower..upper, or nil.
func (v *interval[T]) next(lower, upper uint32) *interval[T] {
	for {
		if r := v.right; r != nil && r.max >= lower {
			return firstIn(r, lower, upper)
		}
		p := v.parent
		for p != nil && p.right == v {
			v, p = p, p.parent
		}
		if p == nil || p.lower > upper {
			return nil
		}
		if p.upper >= lower {
			return p
		}
		v = p
	}
}

// begin returns the first interval of all, or nil; succ the one behind v.
func (t *tree[T]) begin() *interval[T] {
	v := t.root
	for v != nil && v.left != nil {
		v = v.left
	}
	return v
}

func (v *interval[T]) succ() *interval[T] {
	if v.right != nil {
		v = v.right
		for v.left != nil {
			v = v.left
		}
		return v
	}
	for v.parent != nil && v.parent.right == v {
		v = v.parent
	}
	return v.parent
}
