package cli_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"midplane/internal/cli"
	"midplane/internal/lab"
)

// digsigCommand runs a verb in this process.
func digsigCommand(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	var b bytes.Buffer
	code = cli.Run(context.Background(), append([]string{"midplane", "digsig"}, args...), strings.NewReader(""), &b, &b)
	return b.String(), code
}

func wantDigsig(t *testing.T, args ...string) string {
	t.Helper()
	out, code := digsigCommand(t, args...)
	if code != 0 {
		t.Fatalf("midplane digsig %s: code %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

// need ends the test when a program is not there.
func need(t *testing.T, program, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(program); err == nil {
		return
	}
	why := program + " is not there: apt-get install " + pkg
	if os.Getenv("CI") == "true" && os.Geteuid() == 0 {
		t.Fatal(why)
	}
	t.Skip(why)
}

func must(t *testing.T, env []string, argv ...string) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
}

func program(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "program")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// A key that never leaves its token signs a program, by way of the helper as it is built.
func TestDigsigToken(t *testing.T) {
	need(t, "softhsm2-util", "softhsm2")
	dir := t.TempDir()
	libraries, err := filepath.Glob("/usr/lib/*/softhsm/libsofthsm2.so")
	if err != nil || len(libraries) == 0 {
		t.Fatalf("libsofthsm2: %v, %v", libraries, err)
	}
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	t.Setenv("MIDPLANE_PKCS11_MODULE", libraries[0])
	t.Setenv("PIN", "1234")
	must(t, nil, "softhsm2-util", "--init-token", "--free", "--label", "signing", "--pin", "1234", "--so-pin", "87654321")
	helper := filepath.Join(dir, "midplane-pkcs11")
	must(t, []string{"CGO_ENABLED=0"}, "go", "build", "-buildvcs=false", "-o", helper, "midplane/cmd/midplane-pkcs11")
	t.Setenv("MIDPLANE_PKCS11_HELPER", helper)

	p := program(t, dir)
	for _, kind := range []string{"ed25519", "p256"} {
		uri := "pkcs11:token=signing;object=" + kind
		pub := filepath.Join(dir, kind)
		wantDigsig(t, "keygen", "--type", kind, "--token", uri, "--passphrase", "env:PIN", pub)
		wantDigsig(t, "sign", "--key", uri, "--passphrase", "env:PIN", p)
		if out := wantDigsig(t, "verify", "--pub", pub+".pub", p); !strings.Contains(out, "good: signed by") {
			t.Error(out)
		}
	}
	t.Setenv("PIN", "0000")
	if out, code := digsigCommand(t, "sign", "--key", "pkcs11:token=signing;object=p256", "--passphrase", "env:PIN", p); code != 1 || !strings.Contains(out, "the PIN is wrong") {
		t.Errorf("code %d: %s", code, out)
	}
}

// A key in ssh-agent signs a program; with two keys both vouch for it.
func TestDigsigAgent(t *testing.T) {
	for _, tool := range []string{"ssh-agent", "ssh-add", "ssh-keygen"} {
		need(t, tool, "openssh-client")
	}
	dir, err := os.MkdirTemp("", "mpa") // a short name, for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	said, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Process.Kill(); _ = agent.Wait() })
	if _, err := said.Read(make([]byte, 1)); err != nil { // it listens when it says so
		t.Fatal(err)
	}
	t.Setenv("SSH_AUTH_SOCK", socket)
	p := program(t, dir)
	keys := []string{"sign"}
	for _, kind := range []string{"ed25519", "ecdsa"} {
		path := filepath.Join(dir, kind)
		must(t, nil, "ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "my "+kind, "-f", path)
		must(t, nil, "ssh-add", "-q", path)
		wantDigsig(t, "keygen", "--from", "agent:my "+kind, path+"-trust")
		keys = append(keys, "--key", "agent:my "+kind)
		// OpenSSH's own key file is the same key.
		wantDigsig(t, "keygen", "--from", "plain:"+path, path+"-file")
	}
	wantDigsig(t, append(keys, p)...)
	for _, kind := range []string{"ed25519", "ecdsa"} {
		for _, pub := range []string{"-trust.pub", "-file.pub"} {
			if out := wantDigsig(t, "verify", "--pub", filepath.Join(dir, kind+pub), p); !strings.Contains(out, "good: signed by") {
				t.Error(out)
			}
		}
	}
	if out, code := digsigCommand(t, "sign", "--key", "agent:", p); code != 1 || !strings.Contains(out, "2 keys of the ssh-agent fit") {
		t.Errorf("code %d: %s", code, out)
	}
}

// enforcing has an enforcer watch a file system of its own, in a mount namespace of its own, and goes through the verbs.
const enforcing = `set -eu
cd "$D"
digsig() { "$M" digsig "$@"; }
fail() { echo "FAIL: $*"; cat log; exit 1; }
denied() { if "$1" 2>/dev/null; then fail "$1 ran: $2"; fi; }
runs() { "$1" || fail "$1 was denied: $2"; }
mkdir -p m store/trust
mount -t tmpfs none m
cp /bin/true m/good; cp /bin/true m/bad; cp /bin/true m/other
digsig keygen --unencrypted --purpose content,manifest,revocations,policy k >/dev/null
cp k.pub store/trust
digsig sign --key plain:k.key m/good
digsig enforce --check --store "$D/store" --state "$D/state" --mount "$D/m"
"$M" digsig enforce --foreground --store "$D/store" --state "$D/state" --socket "$D/s" --audit "$D/audit" --mount "$D/m" 2>log &
pid=$!
trap 'kill $pid 2>/dev/null || true' EXIT
i=0
until digsig status --socket s >status 2>/dev/null; do
  i=$((i + 1)); [ $i -lt 1200 ] || fail "it does not start"; sleep 0.1
done
grep '^mode enforce ' status || fail "$(cat status)"
grep '^    cure: ' status >/dev/null || fail "no gaps"
digsig status -j --socket s | grep '"mode":"enforce"' >/dev/null || fail "status -j"
runs m/good signed
denied m/bad unsigned
digsig permissive --socket s; runs m/bad permissive
digsig enforce --socket s; denied m/bad 'enforced again'
digsig learn --socket s; runs m/bad learn
digsig enforce --socket s
digsig manifest make --key plain:k.key --out store/other.mdm --name other /bin/true
mkdir store/manifests; mv store/other.mdm store/manifests
denied m/bad 'not listed before the reload'
digsig enforce --reload --socket s; runs m/bad 'listed, as it is the same as other'
digsig revoke --store store --key plain:k.key --why test m/good
digsig enforce --reload --socket s; denied m/good revoked
i=0
until digsig audit tail --log audit -n 50 | grep 'verdict=deny.*reason=revoked.*path=.*/m/good' >/dev/null; do
  i=$((i + 1)); [ $i -lt 600 ] || fail "the log lacks it: $(digsig audit tail --log audit -n 50)"; sleep 0.1
done
digsig audit tail -j --log audit -n 1 | grep '"seq":' >/dev/null || fail "audit tail -j"
digsig enforce --stop --socket s
wait $pid || fail "it ended with $?"
trap - EXIT
runs m/good 'nobody enforces'
digsig audit verify --log audit
sed 2d audit >audit.cut; cp audit.head audit.cut.head
if digsig audit verify --log audit.cut; then fail "a record was taken out, and the log is whole"; else [ $? = 11 ] || fail "code $?"; fi
echo all done
`

func TestIntegrationDigsigEnforcer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an enforcer needs root")
	}
	dir, err := os.MkdirTemp("", "mpe") // a short name, for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	// In a process namespace too: when its first process ends, whatever is left in it does.
	cmd := exec.CommandContext(ctx, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--propagation", "private", "sh", "-c", enforcing)
	cmd.Env = append(os.Environ(), "D="+dir, "M="+lab.Binary(t))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "all done\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
