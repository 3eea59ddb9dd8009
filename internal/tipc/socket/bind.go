package socket

import (
	"slices"

	"midplane/internal/mono"
	"midplane/internal/tipc/names"
	"midplane/internal/tipc/wire"
)

// Bind binds the socket to a range of service addresses, beside those that it is bound to already (bind(2),
// tipc_sk_publish). Scopes other than wire.ScopeNode mean wire.ScopeCluster.
//
// Errors: [ErrAccess] for reserved types, [ErrInvalid] if lower exceeds upper, the socket is connected or the name
// table is full, [ErrAddrInUse] after 2^32-1 bindings.
func (s *Sock) Bind(now mono.Time, r wire.ServiceRange, scope wire.Scope) error {
	if r.Type < wire.ReservedTypes {
		return ErrAccess
	}
	return s.BindReserved(now, r, scope)
}

// BindReserved is Bind for the protocol's own services (tipc_sk_bind).
func (s *Sock) BindReserved(now mono.Time, r wire.ServiceRange, scope wire.Scope) error {
	switch {
	case s.closed:
		return ErrClosed
	case r.Lower > r.Upper || s.state == Established:
		return ErrInvalid
	}
	key := s.port + s.pubCount + 1
	if key == s.port {
		return ErrAddrInUse
	}
	s.t.enter()
	p, err := s.t.net.Publish(now, r, effectiveScope(scope), s.LocalAddr(), key)
	s.t.leave(now)
	if err != nil {
		return ErrInvalid
	}
	s.pubs = append(s.pubs, p)
	s.pubCount++
	return nil
}

// Unbind takes a binding back that was made with the same range and scope; of several equal ones the newest
// (tipc_sk_withdraw). [ErrInvalid] if there is none, except that as in Linux a socket without any binding is content.
func (s *Sock) Unbind(now mono.Time, r wire.ServiceRange, scope wire.Scope) error {
	if s.closed {
		return ErrClosed
	}
	scope = effectiveScope(scope)
	for i := len(s.pubs) - 1; i >= 0; i-- {
		if p := s.pubs[i]; p.Range == r && p.Scope == scope {
			s.withdraw(now, p)
			s.pubs = slices.Delete(s.pubs, i, i+1)
			return nil
		}
	}
	if len(s.pubs) == 0 {
		return nil
	}
	return ErrInvalid
}

// UnbindAll takes all bindings back, newest first.
func (s *Sock) UnbindAll(now mono.Time) {
	for i := len(s.pubs) - 1; i >= 0; i-- {
		s.withdraw(now, s.pubs[i])
	}
	clear(s.pubs)
	s.pubs = s.pubs[:0]
}

func (s *Sock) withdraw(now mono.Time, p *names.Publication) {
	s.t.enter()
	s.t.net.Withdraw(now, p)
	s.t.leave(now)
}

// Publications are the socket's bindings, oldest first. The slice is the socket's own.
func (s *Sock) Publications() []*names.Publication { return s.pubs }

// effectiveScope is the scope that a binding gets: anything but node scope is cluster scope, as with the old zone
// scope.
func effectiveScope(scope wire.Scope) wire.Scope {
	if scope == wire.ScopeNode {
		return scope
	}
	return wire.ScopeCluster
}
