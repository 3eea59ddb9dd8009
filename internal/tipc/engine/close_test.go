package engine

import (
	"sync"
	"testing"

	"midplane/internal/tipc/sockif"
)

// A node may be stopped, in order or not, while its sockets are in full use.
func TestStopUnderLoad(t *testing.T) {
	for i := range 8 {
		a, b := udpPair(t, 0)
		c, s := connect(t, a, b, sockif.SeqPacket)
		r := newSocket(t, a, sockif.RDM)
		to := sockif.Dest{Kind: sockif.SocketDest, Addr: newSocket(t, b, sockif.RDM).LocalAddr()}
		var wg, running sync.WaitGroup
		loop := func(call func() error) {
			running.Add(1)
			wg.Go(func() {
				if call() == nil {
					running.Done()
					for call() == nil {
					}
					return
				}
				running.Done()
			})
		}
		buf, in := make([]byte, 1000), make([]byte, 66000)
		loop(func() error { _, err := c.Send(buf, sockif.Dest{}); return err })
		loop(func() error { _, err := r.Send(buf, to); return err })
		loop(func() error { _, _, err := s.Recv(in); return err })
		running.Wait()
		if i%2 == 0 {
			a.Close()
		} else {
			a.Abort()
		}
		b.Close() // what still waits there ends
		wg.Wait()
	}
}
