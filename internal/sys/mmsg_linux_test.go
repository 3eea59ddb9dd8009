package sys

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestMmsgPair(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])

	const n = 3
	var out, in [n]Mmsg
	var outIov, inIov [n]unix.Iovec
	var outBuf, inBuf [n][8]byte
	for i := range n {
		outBuf[i] = [8]byte{byte('a' + i), byte('A' + i)}
		outIov[i].Base, inIov[i].Base = &outBuf[i][0], &inBuf[i][0]
		outIov[i].SetLen(2)
		inIov[i].SetLen(8)
		out[i].Hdr.Iov, in[i].Hdr.Iov = &outIov[i], &inIov[i]
		out[i].Hdr.SetIovlen(1)
		in[i].Hdr.SetIovlen(1)
	}
	if _, e := Recvmmsg(fds[1], in[:], 0); e != unix.EAGAIN {
		t.Errorf("receiving from an empty socket: %v, want EAGAIN", e)
	}
	if k, e := Sendmmsg(fds[0], out[:], 0); k != n || e != 0 {
		t.Fatalf("Sendmmsg sent %d, %v; want %d", k, e, n)
	}
	k, e := Recvmmsg(fds[1], in[:], 0)
	if k != n || e != 0 {
		t.Fatalf("Recvmmsg got %d, %v; want %d", k, e, n)
	}
	for i := range n {
		if in[i].Len != 2 || inBuf[i] != outBuf[i] {
			t.Errorf("message %d: %d octets %v, want %v", i, in[i].Len, inBuf[i], outBuf[i])
		}
	}
	if e := Sendmsg(fds[0], &out[1], 0); e != 0 || out[1].Len != 2 {
		t.Errorf("Sendmsg: %v, %d octets", e, out[1].Len)
	}
	if e := Recvmsg(fds[1], &in[0], 0); e != 0 || in[0].Len != 2 || inBuf[0] != outBuf[1] {
		t.Errorf("Recvmsg: %v, %d octets %v", e, in[0].Len, inBuf[0])
	}
	if e := Recvmsg(fds[1], &in[0], 0); e != unix.EAGAIN {
		t.Errorf("Recvmsg from an empty socket: %v", e)
	}
	if k, e := Sendmmsg(fds[0], nil, 0); k != 0 || e != 0 {
		t.Errorf("sending nothing: %d, %v", k, e)
	}
}

// The kernel steps through the array by its own struct mmsghdr.
func TestMmsgSize(t *testing.T) {
	want := unsafe.Sizeof(unix.Msghdr{}) + unsafe.Sizeof(uintptr(0))
	if got := unsafe.Sizeof(Mmsg{}); got != want {
		t.Errorf("Mmsg has %d octets, want %d", got, want)
	}
}

func TestSetBuffers(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const want = 64 << 10
	if r, s := SetBuffers(fd, want, want); r != want || s != want {
		t.Errorf("asked for %d, got %d and %d", want, r, s)
	}
	if r, s := SetBuffers(fd, 0, 0); r != want || s != want {
		t.Errorf("asking for nothing changed the sizes to %d and %d", r, s)
	}
}
