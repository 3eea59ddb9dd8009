//go:build linux

package lab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

const ethPAll = 0x0003

// Capture writes every frame that a device of a namespace sees to a file, from the moment it was made.
type Capture struct {
	Path string // pcap file, complete after Stop

	t      testing.TB
	fd     int
	file   *os.File
	stop   atomic.Bool
	done   chan struct{}
	frames int   // valid once done is closed
	err    error // valid once done is closed
}

// Capture records the network's bridge number nic until Stop or the end of the test.
func (n *Network) Capture(nic int) *Capture {
	n.t.Helper()
	return n.CaptureDevice(bridge(nic))
}

// CaptureDevice records a device of the namespace until Stop or the end of the test. Frames that the bridge forwards
// between two ports are seen on the bridge only when it is promiscuous, which this makes it.
func (ns *Namespace) CaptureDevice(device string) *Capture {
	ns.t.Helper()
	c := &Capture{Path: ns.t.TempDir() + "/capture.pcap", t: ns.t, done: make(chan struct{})}
	err := ns.Do(func() (err error) {
		c.fd, err = packetSocket(device)
		return err
	})
	if err == nil {
		c.file, err = os.Create(c.Path)
	}
	if err != nil {
		ns.t.Fatalf("lab: capture on %s: %v", device, err)
	}
	go c.record()
	ns.t.Cleanup(func() { c.Stop() })
	return c
}

// packetSocket opens a promiscuous AF_PACKET socket on a device, with room for bursts and a receive timeout by which
// the recorder looks whether it shall stop.
func packetSocket(device string) (int, error) {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return -1, err
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, int(htons(ethPAll)))
	if err != nil {
		return -1, err
	}
	membership := make([]byte, 16)
	binary.NativeEndian.PutUint32(membership, uint32(i.Index))
	binary.NativeEndian.PutUint16(membership[4:], syscall.PACKET_MR_PROMISC)
	err = errors.Join(
		syscall.Bind(fd, &syscall.SockaddrLinklayer{Protocol: htons(ethPAll), Ifindex: i.Index}),
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, 64<<20),
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &syscall.Timeval{Usec: 50_000}),
		syscall.SetsockoptString(fd, syscall.SOL_PACKET, syscall.PACKET_ADD_MEMBERSHIP, string(membership)),
	)
	if err != nil {
		_ = syscall.Close(fd)
		return -1, err
	}
	return fd, nil
}

func htons(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

// record writes frames until the socket says after Stop that nothing is left.
func (c *Capture) record() {
	defer close(c.done)
	w := bufio.NewWriterSize(c.file, 1<<20)
	head := make([]byte, 24)
	le := binary.LittleEndian
	le.PutUint32(head, 0xa1b23c4d) // times in nanoseconds
	le.PutUint16(head[4:], 2)
	le.PutUint16(head[6:], 4)
	le.PutUint32(head[16:], 1<<18)
	le.PutUint32(head[20:], 1) // Ethernet
	_, _ = w.Write(head)
	frame := make([]byte, 1<<18)
	for {
		n, _, err := syscall.Recvfrom(c.fd, frame, 0)
		if err == syscall.EAGAIN && !c.stop.Load() {
			continue
		}
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			if err != syscall.EAGAIN {
				c.err = err
			}
			break
		}
		now := time.Now()
		var h [16]byte
		le.PutUint32(h[0:], uint32(now.Unix()))
		le.PutUint32(h[4:], uint32(now.Nanosecond()))
		le.PutUint32(h[8:], uint32(n))
		le.PutUint32(h[12:], uint32(n))
		_, _ = w.Write(h[:])
		_, _ = w.Write(frame[:n])
		c.frames++
	}
	c.err = errors.Join(c.err, w.Flush(), c.file.Close(), c.lost(), syscall.Close(c.fd))
}

// lost says how many frames the kernel dropped because the recorder was slow.
func (c *Capture) lost() error {
	var stats struct{ packets, drops uint32 }
	size := uint32(unsafe.Sizeof(stats))
	_, _, errno := syscall.Syscall6(syscall.SYS_GETSOCKOPT, uintptr(c.fd), syscall.SOL_PACKET, syscall.PACKET_STATISTICS,
		uintptr(unsafe.Pointer(&stats)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	if stats.drops > 0 {
		return fmt.Errorf("capture lost %d frames", stats.drops)
	}
	return nil
}

// Stop ends the recording after what has arrived is written, and returns the file. It fails the test when frames
// were lost. Calling it again does nothing.
func (c *Capture) Stop() string {
	c.t.Helper()
	first := !c.stop.Swap(true)
	<-c.done
	if first && c.err != nil {
		c.t.Errorf("lab: %v", c.err)
	}
	return c.Path
}

// Frames returns how many frames were recorded. Call it after Stop.
func (c *Capture) Frames() int { <-c.done; return c.frames }

// Dissection is what tshark makes of a capture.
type Dissection struct {
	TIPC       int      // frames that it reads as TIPC
	Trials     int      // address trials, which it calls unknown
	Suspicious []string // lines that say malformed or unknown, each behind its frame's first line

	// Complaints are the same without repetitions, by sender: tshark does not know all that Linux sends either.
	Complaints map[Complaint]int
}

// Complaint is something that tshark does not understand, or finds wrong.
type Complaint struct {
	Sender string // Ethernet address
	User   string // of the message, as tshark names it
	Text   string
}

// Foreign returns the complaints about frames of other senders than the reference ones which no frame of these caused.
func (d Dissection) Foreign(reference func(sender string) bool) (all []Complaint) {
	known := map[Complaint]bool{}
	for c := range d.Complaints {
		if reference(c.Sender) {
			known[Complaint{User: c.User, Text: c.Text}] = true
		}
	}
	for c := range d.Complaints {
		if !reference(c.Sender) && !known[Complaint{User: c.User, Text: c.Text}] {
			all = append(all, c)
		}
	}
	return all
}

// Tshark dissects a capture with Wireshark's own TIPC dissector, an opinion that is not ours. Suspicious is empty when
// every frame is well understood; address trials are not held against it, as tshark does not know them.
func Tshark(t testing.TB, pcap string) Dissection {
	t.Helper()
	RequireTool(t, "tshark", "tshark")
	cmd := exec.Command("tshark", "-r", pcap, "-V", "-O", "tipc", "-Y", "tipc")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	d := readDissection(bufio.NewScanner(out))
	if err := cmd.Wait(); err != nil {
		t.Fatalf("lab: tshark: %v\n%s", err, stderr.String())
	}
	return d
}

// readDissection reads tshark's verbose text: a line "Frame N: …" and indented lines for each frame.
func readDissection(lines *bufio.Scanner) Dissection {
	d := Dissection{Complaints: map[Complaint]int{}}
	var frame []string
	lines.Buffer(nil, 1<<20)
	judge := func() {
		if len(frame) == 0 {
			return
		}
		d.TIPC++
		discovery := slices.ContainsFunc(frame, func(l string) bool { return strings.Contains(l, "Neighbour Discovery Protocol (13)") })
		var c Complaint
		for _, l := range frame[1:] {
			lower := strings.ToLower(l)
			if _, src, ok := strings.Cut(l, "Ethernet II, Src: "); ok {
				c.Sender, _, _ = strings.Cut(src, " ")
			}
			if _, user, ok := strings.Cut(l, " = User: "); ok {
				c.User = user
			}
			switch {
			case discovery && (strings.HasSuffix(l, "Message type: Unknown (2)") || strings.HasSuffix(l, "Message type: Unknown (3)")):
				d.Trials++
			case strings.Contains(lower, "malformed"), strings.Contains(lower, "unknown"):
				d.Suspicious = append(d.Suspicious, frame[0]+": "+strings.TrimSpace(l))
				_, c.Text, _ = strings.Cut(l, " = ")
				d.Complaints[c]++
			}
		}
	}
	for lines.Scan() {
		l := lines.Text()
		if strings.HasPrefix(l, "Frame ") {
			judge()
			frame = nil
		}
		frame = append(frame, l)
	}
	judge()
	return d
}
