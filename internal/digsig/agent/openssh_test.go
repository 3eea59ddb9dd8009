//go:build unix

package agent

import (
	"bufio"
	"context"
	"crypto"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// startAgent starts OpenSSH's agent in the foreground and returns its socket.
func startAgent(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"ssh-agent", "ssh-add", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			why := tool + " is not there: apt-get install openssh-client"
			if os.Getenv("CI") == "true" && os.Geteuid() == 0 {
				t.Fatal(why)
			}
			t.Skip(why)
		}
	}
	// Short, since a Unix socket's name is.
	dir, err := os.MkdirTemp("", "mpa")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "a")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	// It says where it listens when it does.
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, "SSH_AUTH_SOCK") {
		t.Fatalf("ssh-agent said %q, %v", line, err)
	}
	return socket
}

func TestOpenSSHAgent(t *testing.T) {
	socket := startAgent(t)
	dir := t.TempDir()
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		path := filepath.Join(dir, kind)
		if out, err := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "my "+kind, "-f", path).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		add := exec.Command("ssh-add", "-q", path)
		add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
		if out, err := add.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	t.Setenv("SSH_AUTH_SOCK", socket)
	cfg := Config{Domain: domain}
	keys, err := List(context.Background(), cfg)
	if err != nil || len(keys) != 2 {
		t.Fatalf("%v, %v", keys, err)
	}
	message := []byte(domain + "the statement")
	for _, which := range []string{"my ed25519", "my ecdsa", keys[0].Fingerprint, keys[1].Fingerprint} {
		s, err := Open(context.Background(), which, cfg)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := crypto.SignMessage(s, rand.Reader, message, hashOf(s.Public()))
		if err != nil || !verify(s.Public(), message, sig) {
			t.Errorf("%s: %v", which, err)
		}
		s.Close()
	}
	s, err := Open(context.Background(), "my ed25519", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	remove := exec.Command("ssh-add", "-q", "-D")
	if out, err := remove.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := s.SignMessage(nil, message, crypto.Hash(0)); err == nil {
		t.Error("signed by a key that the agent no longer has")
	}
}
