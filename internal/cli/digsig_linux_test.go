package cli_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"midplane/internal/cli"
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
