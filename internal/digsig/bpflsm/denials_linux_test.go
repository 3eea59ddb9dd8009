package bpflsm

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"midplane/internal/digsig/envelope"
)

func TestDecode(t *testing.T) {
	e := lsmEvent{Time: 7, Cgroup: 8, Inode: 9, Device: 259<<20 | 3, Pid: 10, Parent: 11, Uid: 12, Roles: managerRole | 2, Need: 1, Hook: 3, Reason: 5, Mode: 2, Kind: 1}
	e.Sum[31] = 1
	copy(e.Comm[:], []int8{'s', 'h', 0, 'x'})
	for i := range e.Path {
		e.Path[i] = 'p'
	}
	var b bytes.Buffer
	if err := binary.Write(&b, binary.NativeEndian, &e); err != nil {
		t.Fatal(err)
	}
	d, err := decode(b.Bytes())
	want := Denial{
		Since: 7, Cgroup: 8, Inode: 9, Device: unix.Mkdev(259, 3), PID: 10, Parent: 11, UID: 12, Roles: envelope.RoleLib, Need: envelope.RoleExec,
		Hook: Map, Reason: RoleLacks, Mode: Enforce, Digest: Digest{Verity, e.Sum}, Command: "sh", Path: string(bytes.Repeat([]byte{'p'}, 256)),
	}
	if err != nil || d != want {
		t.Errorf("%+v, %v, want %+v", d, err, want)
	}
	for n := range b.Len() {
		if _, err := decode(b.Bytes()[:n]); err == nil {
			t.Errorf("%d octets were taken for a denial", n)
		}
	}
}
