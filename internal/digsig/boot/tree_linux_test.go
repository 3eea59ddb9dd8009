package boot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"midplane/internal/lab"
)

// tree is a Debian on the host that becomes the guest's root, and the signing host beside it.
type tree struct {
	t        *testing.T
	root     string
	midplane string
	host     string // directory with private keys
}

func (r *tree) path(name string) string { return filepath.Join(r.root, name) }

func (r *tree) write(name, content string, mode os.FileMode) {
	r.t.Helper()
	err := errors.Join(os.MkdirAll(filepath.Dir(r.path(name)), 0o755), os.WriteFile(r.path(name), []byte(content), mode), os.Chmod(r.path(name), mode))
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *tree) read(name string) []byte {
	r.t.Helper()
	b, err := os.ReadFile(r.path(name))
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func (r *tree) copy(from, to string) {
	r.t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		r.t.Fatal(err)
	}
	r.write(to, string(b), 0o755)
}

// run runs a program of the host and wants it to succeed.
func (r *tree) run(args ...string) string {
	r.t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("%q: %v\n%s%s", args, err, out, stderr.Bytes())
	}
	return string(out)
}

func (r *tree) digsig(args ...string) string {
	r.t.Helper()
	return r.run(append([]string{r.midplane, "digsig"}, args...)...)
}

func (r *tree) key(name string) string { return "plain:" + r.host + "/" + name + ".key" }

func (r *tree) sign(name string, more ...string) {
	r.t.Helper()
	r.digsig(append(append([]string{"sign", "--key", r.key("release")}, more...), r.path(name))...)
}

// compile compiles C with the host's compiler, whose library is older than the guest's.
func (r *tree) compile(to, source string, flags ...string) {
	r.t.Helper()
	c := filepath.Join(r.t.TempDir(), "x.c")
	if err := os.WriteFile(c, []byte(source), 0o644); err != nil {
		r.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(r.path(to)), 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.run(append([]string{"gcc", "-o", r.path(to), c}, flags...)...)
}

const agentUnit = `[Unit]
Description=the test's way in
DefaultDependencies=no
Before=sysinit.target

[Service]
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8
ExecStart=/usr/lib/lab-agent
OOMScoreAdjust=-900

[Install]
WantedBy=multi-user.target
`

// newTree makes the tree: all of Debian signed by manifests, Midplane and the test's own programs by signatures inside.
func newTree(t *testing.T) *tree {
	lab.RequireVM(t)
	lab.RequireTool(t, "gcc", "gcc")
	r := &tree{t: t, root: lab.BootTree(t), midplane: lab.Binary(t), host: t.TempDir()}
	for _, key := range []string{"release", "stranger"} {
		r.digsig("keygen", "--unencrypted", filepath.Join(r.host, key))
	}
	r.run("install", "-D", "-m", "644", filepath.Join(r.host, "release.pub"), r.path("etc/midplane/digsig/trust/release.pub"))
	r.run("install", "-m", "644", "../../../packaging/apt/90midplane-digsig", r.path("etc/apt/apt.conf.d/90midplane-digsig"))
	for _, unit := range []string{"midplane-digsig.service", "midplane-digsig-guardian.service"} {
		r.run("install", "-m", "644", "../../../packaging/systemd/"+unit, r.path("usr/lib/systemd/system/"+unit))
	}
	r.copy(r.midplane, "usr/bin/midplane")
	r.sign("usr/bin/midplane", "--name", "midplane", "--version", "1")
	r.copy(r.midplane, "root/midplane.new")
	r.sign("root/midplane.new", "--name", "midplane", "--version", "2")
	r.copy(lab.AgentProgram(t), "usr/lib/lab-agent")
	r.sign("usr/lib/lab-agent")

	enable := func(unit, target string) {
		dir := r.path("etc/systemd/system/" + target + ".wants")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Symlink("/usr/lib/systemd/system/"+unit, filepath.Join(dir, unit))); err != nil {
			t.Fatal(err)
		}
	}
	r.write("usr/lib/systemd/system/lab-agent.service", agentUnit, 0o644)
	for _, unit := range []string{"midplane-digsig.service", "midplane-digsig-guardian.service"} {
		r.write("etc/systemd/system/"+unit+".d/console.conf", "[Service]\nStandardError=tty\nTTYPath=/dev/console\nTTYReset=no\n", 0o644)
		enable(unit, "sysinit.target")
	}
	enable("lab-agent.service", "sysinit.target")
	for _, unit := range []string{"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "systemd-networkd.service", "serial-getty@ttyS0.service", "systemd-modules-load.service"} {
		if err := os.Symlink("/dev/null", r.path("etc/systemd/system/"+unit)); err != nil && !errors.Is(err, os.ErrExist) {
			t.Fatal(err)
		}
	}
	r.write("etc/hostname", "signed\n", 0o644)
	r.write("etc/fstab", "", 0o644)
	r.write("etc/cron.d/lab", "* * * * * root touch /run/cron-ran\n", 0o644)
	r.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", r.path("root/id"))
	r.write("root/.ssh/authorized_keys", string(r.read("root/id.pub")), 0o600)
	r.repository()
	r.plant()
	manifests := r.path("etc/midplane/digsig/manifests")
	if err := os.MkdirAll(manifests, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Log(strings.TrimSpace(r.digsig("manifest", "make", "--dpkg", "--root", r.root, "--key", r.key("release"), "--out", manifests)))
	return r
}

// repository makes an archive with Debian's package hello, and its manifest, which comes before the package does.
func (r *tree) repository() {
	r.t.Helper()
	debs, err := filepath.Glob(r.path("var/cache/lab/hello_*.deb"))
	if err != nil || len(debs) != 1 {
		r.t.Fatalf("%v, %v", debs, err)
	}
	r.copy(debs[0], "srv/archive/"+filepath.Base(debs[0]))
	sum, _, _ := strings.Cut(r.run("sha256sum", debs[0]), " ")
	info, err := os.Stat(debs[0])
	if err != nil {
		r.t.Fatal(err)
	}
	control := strings.TrimSpace(r.run("dpkg-deb", "-f", debs[0]))
	r.write("srv/archive/Packages", fmt.Sprintf("%s\nFilename: ./%s\nSize: %d\nSHA256: %s\n\n", control, filepath.Base(debs[0]), info.Size(), sum), 0o644)
	for _, name := range []string{"etc/apt/sources.list", "etc/apt/sources.list.d/debian.sources"} {
		_ = os.Remove(r.path(name))
	}
	r.write("etc/apt/sources.list.d/lab.list", "deb [trusted=yes] file:/srv/archive ./\n", 0o644)
	incoming := r.path("var/lib/midplane/digsig/incoming")
	if err := os.MkdirAll(incoming, 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.digsig("manifest", "make", "--deb", "--key", r.key("release"), "--out", incoming, debs[0])
}

// unsigned returns what of the tree would not run, besides what was planted.
func (r *tree) unsigned() []string {
	r.t.Helper()
	var found []struct{ Path, Reason string }
	cmd := exec.Command(r.midplane, "digsig", "verify", "-j", "--store", r.path("etc/midplane/digsig"), r.root)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatal(err)
	}
	if err := json.Unmarshal(out, &found); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	var bad []string
	for _, f := range found {
		if name := strings.TrimPrefix(f.Path, r.root); !strings.HasPrefix(name, "/opt/planted/") {
			bad = append(bad, name+": "+f.Reason)
		}
	}
	return bad
}
