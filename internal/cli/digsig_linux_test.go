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

// watched begins a script: in a mount namespace of its own there is a file system m, and keys.
const watched = `set -eu
cd "$D"
digsig() { "$M" digsig "$@"; }
exec 3>&1 # what ends a test is told where its output was sent elsewhere too
fail() { echo "FAIL: $*" >&3; cat log >&3; exit 1; }
denied() { if "$1" 2>/dev/null; then fail "$1 ran: $2"; fi; }
runs() { "$1" || fail "$1 was denied: $2"; }
codes() { want=$1; shift; got=0; "$@" || got=$?; [ $got = $want ] || fail "code $got, want $want: $*"; }
mkdir -p m store/trust store/manifests
mount -t tmpfs none m
digsig keygen --unencrypted --purpose content,manifest,revocations,policy k >/dev/null
cp k.pub store/trust
begin() {
  "$M" digsig enforce --foreground --store "$D/store" --state "$D/state" --socket "$D/s" --audit "$D/audit" --mount "$D/m" "$@" 2>log &
  pid=$!
  trap 'kill $pid 2>/dev/null || true' EXIT
  i=0
  until digsig status --socket s >status 2>/dev/null; do
    i=$((i + 1)); [ $i -lt 1200 ] || fail "it does not start"; sleep 0.1
  done
}
end() {
  digsig enforce --stop --socket s
  wait $pid || fail "it ended with $?"
  trap - EXIT
}
`

// enforcing has an enforcer watch a file system and goes through the verbs.
const enforcing = watched + `
cp /bin/true m/good; cp /bin/true m/bad; cp /bin/true m/other
digsig sign --key plain:k.key m/good
digsig enforce --check --store "$D/store" --state "$D/state" --mount "$D/m"
begin
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
mv store/other.mdm store/manifests
denied m/bad 'not listed before the reload'
digsig enforce --reload --socket s; runs m/bad 'listed, as it is the same as other'
digsig revoke --store store --key plain:k.key --why test m/good
digsig enforce --reload --socket s; denied m/good revoked
i=0
until digsig audit tail --log audit -n 50 | grep 'verdict=deny.*reason=revoked.*path=.*/m/good' >/dev/null; do
  i=$((i + 1)); [ $i -lt 600 ] || fail "the log lacks it: $(digsig audit tail --log audit -n 50)"; sleep 0.1
done
digsig audit tail -j --log audit -n 1 | grep '"seq":' >/dev/null || fail "audit tail -j"
end
runs m/good 'nobody enforces'
digsig audit verify --log audit
sed 2d audit >audit.cut; cp audit.head audit.cut.head
if digsig audit verify --log audit.cut; then fail "a record was taken out, and the log is whole"; else [ $? = 11 ] || fail "code $?"; fi
echo all done
`

// learning has an enforcer learn, makes a manifest of it, and enforces that.
const learning = watched + `
cp /bin/true m/tool
printf '#!%s\nexit 0\n' "$D/m/sh" >m/script; cp /bin/sh m/sh; chmod +x m/script
printf '#!/bin/sh\nexit 0\n' >'m/a name'; chmod +x 'm/a name'
for f in changed gone noise signed revoked backup never; do cp /bin/true m/$f; echo $f >>m/$f; done
digsig revoke --store store --key plain:k.key --why 'it is bad' m/revoked >/dev/null
begin --mode learn
grep '^mode learn ' status >/dev/null || fail "$(cat status)"
for f in tool script 'a name' changed gone noise signed revoked; do runs "m/$f" learn; done
runs m/tool again
cp m/backup backup
echo more >>m/changed
rm m/gone
digsig manifest make --key plain:k.key --out store/manifests/signed.mdm m/signed >/dev/null
i=0
until digsig audit tail --log audit -n 100 | grep '/m/backup' >/dev/null; do
  i=$((i + 1)); [ $i -lt 600 ] || fail "the log lacks it: $(digsig audit tail --log audit -n 100)"; sleep 0.1
done
review() { digsig learn review --store store --log audit --exclude '*/noise' --exclude-by "$(readlink -f "$(command -v cp)")" "$@"; }
codes 15 review >list 2>said
cat said
grep '^4 files learnt, 3 left out, 2 excluded, 1 signed by now$' said >/dev/null || fail "$(cat said list)"
grep "^file [0-9a-f]* [0-9]* elf exec \"${D#/}/m/tool\"$" list >/dev/null || fail "$(cat list)"
grep "^file [0-9a-f]* [0-9]* elf exec \"${D#/}/m/sh\"$" list >/dev/null || fail "$(cat list)"
grep "^file [0-9a-f]* [0-9]* script script \"${D#/}/m/a name\"$" list >/dev/null || fail "$(cat list)"
grep "^# $D/m/tool: unsigned, exec, lib by .*user 0, cgroup /.*, [0-9]* events from 20" list >/dev/null || fail "$(cat list)"
grep "^# left out: $D/m/changed, .* it is another file now" list >/dev/null || fail "$(cat list)"
grep "^# left out: $D/m/gone, .* it is gone" list >/dev/null || fail "$(cat list)"
grep "^# left out: $D/m/revoked, .*it is bad" list >/dev/null || fail "$(cat list)"
codes 15 review -j >list.json
grep '"excluded":2,"signed":1' list.json >/dev/null || fail "$(cat list.json)"
digsig enforce --socket s; denied m/tool 'enforced before it is signed'
sed '/\/m\/a name"/d' list | digsig manifest make --from-list - --key plain:k.key --out store/manifests/learnt.mdm
digsig enforce --reload --socket s
for f in tool script signed; do runs m/$f learnt; done
for f in changed noise revoked backup never 'a name'; do denied "m/$f" 'not on the list'; done
cp m/tool tool; echo more >>m/tool; denied m/tool altered
codes 1 digsig verify --store store --socket none m/tool >said
grep 'm/tool: unreadable: .*an enforcer may deny opening it' said >/dev/null || fail "$(cat said)"
codes 11 digsig verify --store store --socket s m/tool >said
grep 'm/tool: broken: .*changed after it was signed (says the enforcer' said >/dev/null || fail "$(cat said)"
codes 11 digsig explain --store store --socket s m/tool >/dev/null
codes 13 digsig verify -q --store store --socket s m/revoked
codes 10 digsig verify -q --store store --socket s m/backup
cp tool m/elsewhere; runs m/elsewhere 'the same content'
end
# A log that somebody wrote into teaches nothing, nor does one that is cut off.
sed 's,/m/tool,/m/evil,' audit >audit.bad; cp audit.head audit.bad.head
codes 11 digsig learn review --store store --log audit.bad >none
sed '$d' audit >audit.cut; cp audit.head audit.cut.head
codes 11 digsig learn review --store store --log audit.cut >none
cp audit audit.headless
codes 11 digsig learn review --store store --log audit.headless >none
codes 1 digsig learn review --store store --log none.at.all >none
[ ! -s none ] || fail "a list: $(cat none)"
echo all done
`

func TestIntegrationDigsigEnforcer(t *testing.T) { inNamespace(t, enforcing) }

func TestIntegrationDigsigLearn(t *testing.T) { inNamespace(t, learning) }

// inNamespace runs a script, which must end by saying so, in a directory of its own and in its own mount and process
// namespaces: when the first process ends, whatever is left of it does.
func inNamespace(t *testing.T, script string) {
	t.Helper()
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
	cmd := exec.CommandContext(ctx, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--propagation", "private", "sh", "-c", script)
	cmd.Env = append(os.Environ(), "D="+dir, "M="+lab.Binary(t))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "all done\n") {
		t.Errorf("%v\n%s", err, out)
	}
}
