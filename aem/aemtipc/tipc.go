// Package aemtipc makes events of what a TIPC node tells: topology events and messages.
package aemtipc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"midplane/aem"
	"midplane/tipc"
)

// Topology is the source of the bindings of services that overlap r: what is bound already comes first, after each Start.
// It ends by itself when the subscription times out or the node closes.
func Topology(n *tipc.Node, r tipc.ServiceRange, cfg *tipc.SubscribeConfig) aem.Source[tipc.Event] {
	return aem.Func(fmt.Sprintf("topology %v", r), func(ctx context.Context, emit func(tipc.Event) error) error {
		s, err := n.Subscribe(r, cfg)
		if err != nil {
			return err
		}
		defer s.Close()
		for {
			e, err := s.NextContext(ctx)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			_ = emit(e) // that it was refused is counted by the event
		}
	})
}

// Message is one that a socket received. Data is the handler's.
type Message struct {
	Data   []byte
	Info   tipc.MsgInfo
	socket *tipc.PacketConn
}

// Reply sends a message back to the sender. It may wait while the link is congested.
func (m *Message) Reply(b []byte) error {
	_, err := m.socket.WriteTo(b, m.Info.From)
	return err
}

// MaxMessage is the longest message that a node carries, in octets.
const MaxMessage = 66000

// Messages is the source of messages to a service. The socket is bound while the event is started, so that other sockets of the
// service get them meanwhile.
func Messages(n *tipc.Node, to tipc.ServiceAddr, cfg *tipc.SocketConfig) aem.Source[Message] {
	return aem.Func(fmt.Sprintf("messages to %v", to), func(ctx context.Context, emit func(Message) error) error {
		c, err := n.ListenPacket(to, cfg)
		if err != nil {
			return err
		}
		defer c.Close()
		defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })()
		buf := make([]byte, MaxMessage)
		for {
			k, info, err := c.ReadMsg(buf)
			if err != nil {
				return err
			}
			_ = emit(Message{Data: append([]byte(nil), buf[:k]...), Info: info, socket: c})
		}
	})
}
