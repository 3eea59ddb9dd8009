//go:build linux

package interop

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"midplane/internal/lab"
	"midplane/tipc"
)

// tolerance is the default of links; slack covers the timer grid of both ends and a busy machine.
const (
	tolerance = 1500 * time.Millisecond
	slack     = 1500 * time.Millisecond
)

// TestIntegrationCableCut pulls our plug: both sides notice within the tolerance, connections break with it, and all
// heals when the plug is back.
func TestIntegrationCableCut(t *testing.T) {
	for _, m := range media[:2] {
		t.Run(m.name, func(t *testing.T) {
			c := newCluster(t, m, 1, 1, 1)
			c.waitUp()
			g, n := c.guests[0], c.nodes[0]
			l, err := n.Listen(service(1), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			awaitGuest(t, g, service(1))
			client := g.Program("client.py", "--to", text(1), "--hold")
			conn := accept(t, l)
			defer conn.Close()
			client.Expect("sent")
			read := make(chan error, 1)
			go func() {
				_, err := io.Copy(io.Discard, conn)
				read <- err
			}()

			start := time.Now()
			c.hosts[0].Ports[0].Down()
			waitPeers(t, n, 0)
			us := time.Since(start)
			g.WaitPeers(0)
			them := time.Since(start)
			if us > tolerance+slack || them > tolerance+slack {
				t.Errorf("the cut was seen after %v by us and %v by Linux, tolerance is %v", us, them, tolerance)
			}
			t.Logf("the cut was seen after %v by us and %v by Linux", us, them)
			if err := <-read; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("our end of the connection ended with %v, want ECONNRESET", err)
			}
			if e := client.Expect("broken"); e.Text("errno") == "eof" {
				t.Errorf("Linux's end of the connection ended with %v", e)
			}
			c.hosts[0].Ports[0].Up()
			c.waitUp()
			c.waitNamesEqual()
			linuxToOurs(t, g, n, tipc.Stream, 2, 10, 65536)
		})
	}
}

// TestIntegrationGuestReboot kills the guest and boots it again.
func TestIntegrationGuestReboot(t *testing.T) {
	c := newCluster(t, media[0], 1, 1, 1)
	c.waitUp()
	g, n := c.guests[0], c.nodes[0]
	server := g.Program("serve.py", "--service", text(1))
	server.Expect("ready")
	conn := dial(t, n, service(1), tipc.Stream)
	defer conn.Close()
	start := time.Now()
	g.Kill()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ended with %v, want ECONNRESET", err)
	}
	if took := time.Since(start); took > tolerance+slack {
		t.Errorf("the loss was seen after %v, tolerance is %v", took, tolerance)
	}
	waitPeers(t, n, 0)
	g.Boot()
	media[0].guest(g, 0)
	c.waitUp()
	c.waitNamesEqual()
	oursToLinux(t, n, g, tipc.Stream, 2, 10, 65536)
}

// TestIntegrationOursKilled runs our node as the daemon and kills it without warning.
func TestIntegrationOursKilled(t *testing.T) {
	lab.Require(t)
	dir := t.TempDir()
	binary := filepath.Join(dir, "midplane")
	if out, err := exec.Command("go", "build", "-o", binary, "midplane/cmd/midplane").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	net := lab.NewNetwork(t)
	g := net.Guests(1, lab.GuestConfig{})[0]
	h := net.Host(1)
	g.EnableUDP(0)
	start := func() *lab.Proc {
		return h.Start(binary, "node", "--identity", "ours", "--control", filepath.Join(dir, "control"),
			"--bearer", "udp,name=u1,localip="+h.Addr(0).String())
	}
	node := start()
	g.WaitPeers(1)
	server := h.Start(binary, "tipc", "pipe", "--control", filepath.Join(dir, "control"), "--listen", text(1))
	awaitGuest(t, g, service(1))
	client := g.Program("client.py", "--to", text(1), "--hold")
	client.Expect("sent")

	node.Kill()
	killed := time.Now()
	if e := client.Expect("broken"); e.Text("errno") == "eof" {
		t.Errorf("Linux's connection ended with %v", e)
	}
	if took := time.Since(killed); took > tolerance+slack {
		t.Errorf("Linux saw the loss after %v, tolerance is %v", took, tolerance)
	}
	g.WaitPeers(0)
	server.Kill()
	node = start()
	g.WaitPeers(1)
	server = h.Start(binary, "tipc", "pipe", "--control", filepath.Join(dir, "control"), "--listen", text(1))
	awaitGuest(t, g, service(1))
	client = g.Program("client.py", "--to", text(1), "--seed", "again", "--size", "5000")
	client.Expect("sent")
	client.Finish()
	server.ExpectLine("")
	node.Kill()
}

// TestIntegrationFailover has two bearers and cuts one under load: nothing is lost and nothing reordered, both ways.
func TestIntegrationFailover(t *testing.T) {
	for _, m := range media[:2] {
		t.Run(m.name, func(t *testing.T) {
			c := newCluster(t, m, 1, 1, 2)
			c.waitUp()
			g, n := c.guests[0], c.nodes[0]
			g.WaitLinks(2)

			const size = 2000
			server := g.Program("serve.py", "--type", "seqpacket", "--service", text(1), "--exit-after", "1", "--numbered", "--size", strconv.Itoa(size))
			server.Expect("ready")
			out := dial(t, n, service(1), tipc.SeqPacket)
			l, err := n.Listen(service(2), &tipc.SocketConfig{Type: tipc.SeqPacket})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			awaitGuest(t, g, service(2))
			client := g.Program("client.py", "--type", "seqpacket", "--to", text(2), "--endless", "--numbered", "--size", strconv.Itoa(size))
			in := accept(t, l)
			defer in.Close()

			stop := make(chan struct{})
			sent := make(chan int, 1)
			go func() {
				m := make([]byte, size)
				for i := 0; ; i++ {
					select {
					case <-stop:
						sent <- i
						return
					default:
					}
					number(m, i)
					if _, err := out.Write(m); err != nil {
						t.Errorf("message %d: %v", i, err)
						sent <- i
						return
					}
				}
			}()
			received := make(chan error, 1)
			count := make(chan int, 1)
			go func() {
				b := make([]byte, tipc.MaxMessage)
				for i := 0; ; i++ {
					k, err := in.Read(b)
					if err == io.EOF {
						count <- i
						received <- nil
						return
					}
					if err == nil && (k != size || numberOf(b) != i) {
						err = fmt.Errorf("message %d has %d octets and number %d", i, k, numberOf(b))
					}
					if err != nil {
						count <- i
						received <- err
						return
					}
				}
			}()

			for range 2 {
				for nic := range 2 {
					time.Sleep(500 * time.Millisecond) // traffic on both links; not a synchronisation
					c.hosts[0].Ports[nic].Down()
					g.WaitLinks(1)
					c.hosts[0].Ports[nic].Up()
					g.WaitLinks(2)
				}
			}
			close(stop)
			total := <-sent
			out.Close()
			if got := server.Expect("received"); got.Int("messages") != total || got.Text("end") != "eof" {
				t.Errorf("Linux received %v, want %d messages", got, total)
			}
			client.Stdin.Close()
			report := client.Expect("sent")
			if err := <-received; err != nil {
				t.Error(err)
			}
			if got := <-count; got != report.Int("messages") {
				t.Errorf("received %d messages, Linux sent %v", got, report)
			}
			if peersUp(n) != 1 {
				t.Error("the peer is not up any more")
			}
			t.Logf("%d messages out, %d in, over four cuts", total, report.Int("messages"))
		})
	}
}

func number(m []byte, n int) {
	for i := range 8 {
		m[i] = byte(uint64(n) >> (56 - 8*i))
	}
}

func numberOf(m []byte) (n int) {
	for _, b := range m[:8] {
		n = n<<8 | int(b)
	}
	return n
}
