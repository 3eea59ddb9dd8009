package aem

import (
	"sync"
	"sync/atomic"
)

// contexts keeps the Ctx of inline runs: a stack without locks, which grows to as many as ran at once and is what the
// stall detector looks through.
type contexts struct {
	top  atomic.Uint64          // tag in the upper half (against ABA), index+1 in the lower; 0 is empty
	all  atomic.Pointer[[]*Ctx] // grows only
	grow sync.Mutex
}

func (s *contexts) list() []*Ctx {
	if l := s.all.Load(); l != nil {
		return *l
	}
	return nil
}

func (s *contexts) get() *Ctx {
	for {
		top := s.top.Load()
		i := uint32(top)
		if i == 0 {
			return s.make()
		}
		x := s.list()[i-1]
		if s.top.CompareAndSwap(top, (top>>32+1)<<32|uint64(x.next.Load())) {
			return x
		}
	}
}

func (s *contexts) put(x *Ctx) {
	x.task, x.class = nil, nil
	x.routines.Store(nil)
	for {
		top := s.top.Load()
		x.next.Store(uint32(top))
		if s.top.CompareAndSwap(top, (top>>32+1)<<32|uint64(x.index)) {
			return
		}
	}
}

func (s *contexts) make() *Ctx {
	s.grow.Lock()
	defer s.grow.Unlock()
	old := s.list()
	x := &Ctx{index: uint32(len(old) + 1)}
	l := append(append(make([]*Ctx, 0, len(old)+1), old...), x)
	s.all.Store(&l)
	return x
}
