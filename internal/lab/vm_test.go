//go:build linux

package lab

import (
	"strings"
	"testing"
)

// TestIntegrationVM is the lab's proof of virtual machines: Debian 13's kernel with BPF LSM, files both ways, a disk with
// fs-verity that outlives a power cut.
func TestIntegrationVM(t *testing.T) {
	RequireVM(t)
	RequireTool(t, "fsverity", "fsverity")
	v := NewVM(t, VMConfig{Disks: []string{Ext4Image(t, Ext4{})}, Append: "lab.word=x"})
	if release := v.Sh("uname -r"); !strings.HasPrefix(release, "6.12.") || !strings.Contains(release, "deb13") {
		t.Errorf("the kernel is %q", release)
	}
	if lsms := v.Sh("cat /sys/kernel/security/lsm"); !strings.Contains(lsms, ",bpf,") {
		t.Errorf("LSMs are %q", lsms)
	}
	if !strings.Contains(v.Sh("cat /proc/cmdline"), " lab.word=x") {
		t.Error("the command line lacks what was appended")
	}
	path := v.Share("in", []byte("from the host\n"))
	if got := v.Sh("cat %s; echo from the guest > /run/lab/out", path); got != "from the host\n" {
		t.Errorf("the guest read %q", got)
	}
	v.Sh("mkdir /tmp/disk && mount /dev/vda /tmp/disk && cp /bin/true /tmp/disk/ && fsverity enable /tmp/disk/true && sync")
	p := v.Start("cat")
	big := strings.Repeat("0123456789abcdef\n", 20_000)
	if _, err := p.Stdin.Write([]byte(big)); err != nil {
		t.Error(err)
	}
	p.Stdin.Close()
	if got := p.Finish(); got != big {
		t.Errorf("%d octets came back of %d", len(got), len(big))
	}
	v.Reboot()
	v.Sh("mkdir /tmp/disk && mount /dev/vda /tmp/disk && /tmp/disk/true && fsverity measure /tmp/disk/true")
	if r, err := v.Run(t.Context(), "echo x >> /tmp/disk/true"); err != nil || r.Code == 0 || !strings.Contains(r.Stderr, "not permitted") {
		t.Errorf("writing to a file with fs-verity: %+v, %v", r, err)
	}
	v.Shutdown()
}
