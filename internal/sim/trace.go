package sim

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/msg"
	"midplane/internal/tipc/wire"
)

type noteKind uint8

const (
	noteSend noteKind = iota + 1
	noteLost
	noteDeliver
	noteStart
	noteStop
	noteApp
)

// note mixes what happens into the world's hash, and traces it.
func (w *World) note(k noteKind, host, seg int, pkt []byte) {
	const prime = 1099511628211
	h := (w.hash ^ uint64(w.now)) * prime
	h = (h ^ uint64(k)<<48 ^ uint64(host)<<16 ^ uint64(seg)) * prime
	h = (h ^ uint64(len(pkt))) * prime
	for b := pkt[:min(len(pkt), 96)]; len(b) >= 8; b = b[8:] {
		h = (h ^ binary.LittleEndian.Uint64(b)) * prime
		h ^= h >> 29
	}
	w.hash = h
	if w.tracer == nil {
		return
	}
	switch k {
	case noteSend:
		w.Tracef("%2d>  %c %s", host, 'A'+seg, describe(pkt))
	case noteLost:
		w.Tracef("  x%d %c", host, 'A'+seg)
	case noteDeliver:
		w.Tracef("  >%d %c %s", host, 'A'+seg, describe(pkt))
	case noteStart:
		w.Tracef("%2d starts", host)
	case noteStop:
		w.Tracef("%2d stops", host)
	}
}

// mark mixes what an application saw into the hash.
func (w *World) mark(host int, a, b uint64) {
	var p [16]byte
	binary.LittleEndian.PutUint64(p[:], a)
	binary.LittleEndian.PutUint64(p[8:], b)
	w.note(noteApp, host, 0, p[:])
}

// tracer keeps the latest lines of a trace, or writes all of them.
type tracer struct {
	out  io.Writer // nil: keep
	keep int
	ring []string
	n    int
}

// TraceTo makes the World write a trace to out as it runs.
func (w *World) TraceTo(out io.Writer) { w.tracer = &tracer{out: out} }

// TraceKeep makes the World keep the latest n lines of its trace for [World.Trace].
func (w *World) TraceKeep(n int) { w.tracer = &tracer{keep: n, ring: make([]string, n)} }

// Tracing reports whether a trace is made.
func (w *World) Tracing() bool { return w.tracer != nil }

// Tracef adds a line to the trace.
func (w *World) Tracef(format string, args ...any) {
	t := w.tracer
	if t == nil {
		return
	}
	line := fmt.Sprintf("%12.6f ", time.Duration(w.now).Seconds()) + fmt.Sprintf(format, args...)
	if t.out != nil {
		fmt.Fprintln(t.out, line)
		return
	}
	t.ring[t.n%t.keep] = line
	t.n++
}

// Trace returns the lines that were kept.
func (w *World) Trace() (lines []string) {
	t := w.tracer
	if t == nil || t.out != nil {
		return nil
	}
	for i := max(0, t.n-t.keep); i < t.n; i++ {
		lines = append(lines, t.ring[i%t.keep])
	}
	return lines
}

// describe names a message and its numbers in one short line.
func describe(pkt []byte) string {
	m, err := wire.Validate(pkt)
	if err != nil {
		return fmt.Sprintf("%d octets: %v", len(pkt), err)
	}
	switch u := m.User(); u {
	case wire.UserLinkConfig:
		return fmt.Sprintf("DSC %s of %x for %x sugg %x sig %x", [8]string{"req", "resp", "trial", "fail", "?", "?", "?", "?"}[m.Type()], m.PrevNode(), m.DestDomain(), m.SuggNodeAddr(), m.NodeSig())
	case wire.UserLinkProtocol:
		typ := [8]string{"STATE", "RESET", "ACTIVATE", "?", "?", "?", "?", "?"}[m.Type()]
		s := fmt.Sprintf("%s %x>%x session %d seq %d ack %d next %d", typ, m.PrevNode(), m.DestNode(), m.Session(), m.SeqNo(), m.Ack(), m.NextSent())
		if m.Type() == wire.TypeState {
			s += fmt.Sprintf(" gap %d bcack %d lastbc %d", m.SeqGap(), m.BcastAck(), m.LastBcast())
		} else if m.DestSessionValid() {
			s += fmt.Sprintf(" for session %d", m.DestSession())
		}
		if m.Probe() {
			s += " probe"
		}
		if m.RedundantLink() {
			s += " redundant"
		}
		if m.PeerStopping() {
			s += " stopping"
		}
		return s
	default:
		s := fmt.Sprintf("%v/%d %x>%x", u, m.Type(), m.PrevNode(), m.DestNode())
		if m.NonSeq() {
			s += " bcast"
		}
		s += fmt.Sprintf(" seq %d ack %d bcack %d size %d", m.SeqNo(), m.Ack(), m.BcastAck(), m.Size())
		switch {
		case m.IsData():
			s += fmt.Sprintf(" port %x>%x", m.OrigPort(), m.DestPort())
			if e := m.ErrCode(); e != wire.CodeOK {
				s += fmt.Sprintf(" %v", e)
			}
			if m.IsSyn() {
				s += " SYN"
			}
		case u == wire.UserTunnel && m.Type() == wire.TypeFailover && m.FragmNo() <= 1:
			s += " { " + describe(m.InnerHdr()) + " }"
		case u == wire.UserBundler:
			s += " {"
			for pos := 0; ; {
				in, next, ok := msg.Extract(m, pos)
				if !ok || next <= pos {
					break
				}
				s += " " + describe(in) + ";"
				pos = next
			}
			s += " }"
		}
		return s
	}
}

// since is how long ago t was.
func (w *World) since(t mono.Time) time.Duration { return w.now.Sub(t) }
