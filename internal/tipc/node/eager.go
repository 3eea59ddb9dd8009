package node

import "midplane/internal/mono"

// SetBundleEager lets links hold a small message back until [Table.Flush], so that those sent meanwhile travel in one
// packet with it; see link.SetBundleEager. Off by default, as in the kernel, which bundles only what waits for the
// window. With it on the driver must call Flush before it takes the output.
func (t *Table) SetBundleEager(v bool) {
	t.eager = v
	for _, p := range t.sorted {
		for i := range p.links {
			if l := p.links[i].link; l != nil {
				l.SetBundleEager(v)
			}
		}
	}
}

// Flush sends what links hold back. It costs nothing when there is none.
func (t *Table) Flush(now mono.Time) {
	for i, le := range t.heldBack {
		t.heldBack[i] = nil
		le.queued = false
		if le.link != nil {
			le.link.Flush(now, le)
		}
	}
	t.heldBack = t.heldBack[:0]
}

// noteHeldBack remembers that a link may hold a message back.
func (t *Table) noteHeldBack(le *linkEntry) {
	if !le.queued && le.link.Pending() {
		le.queued = true
		t.heldBack = append(t.heldBack, le)
	}
}
