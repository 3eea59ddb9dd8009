package dpkg_test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"midplane/internal/digsig/dpkg/debiantest"
	"midplane/internal/lab"
)

var commandBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// documented returns the commands of docs/digsig-debian.md, in their order.
func documented(t *testing.T) (lines []string) {
	t.Helper()
	b, err := os.ReadFile("../../../docs/digsig-debian.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range commandBlock.FindAllStringSubmatch(string(b), -1) {
		for line := range strings.Lines(m[1]) {
			if line = strings.TrimSpace(line); line != "" {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// Every command of the document, as it stands there, makes of a Debian system one that is signed, and keeps it so. Those that
// talk to an enforcer are run where one is (cli.TestIntegrationDigsigEnforcer, boot.TestIntegrationDebianBoots).
func TestIntegrationDebianDocument(t *testing.T) {
	root := lab.BootTree(t)
	s := system{&debiantest.System{T: t, Root: root, Midplane: lab.Binary(t), Host: t.TempDir(), Store: filepath.Join(root, "etc/midplane/digsig")}}
	// The signing host has the program, what belongs to it, and a passphrase, as a service of systemd would.
	for _, argv := range [][]string{
		{"mkdir", filepath.Join(s.Host, "bin"), filepath.Join(s.Host, "credentials"), filepath.Join(s.Host, "archives")},
		{"cp", s.Midplane, filepath.Join(s.Host, "bin/midplane")},
		{"cp", s.Midplane, filepath.Join(s.Host, "midplane")}, // the one for the image
		{"cp", "-r", "../../../packaging", s.Host},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	for name, content := range map[string]string{
		"credentials/midplane-digsig-passphrase": "correct horse",
		"bin/apt-get":                            "#!/bin/sh\nexec chroot /srv/image apt-get \"$@\"\n", // not the machine's own
	} {
		if err := os.WriteFile(filepath.Join(s.Host, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	deb := s.deb("3", "usr/bin/true")
	if err := os.Rename(filepath.Join(root, deb), filepath.Join(s.Host, "archives", filepath.Base(deb))); err != nil {
		t.Fatal(err)
	}

	const host, inside, elsewhere = "host", "inside", "elsewhere"
	where := map[string]string{
		"midplane digsig enforce --check":  elsewhere,
		"midplane digsig audit tail -f":    elsewhere,
		"midplane digsig status":           elsewhere,
		"midplane digsig enforce --reload": elsewhere,
		"midplane digsig dpkg before ./tool_3_amd64.deb && dpkg -i ./tool_3_amd64.deb; midplane digsig dpkg after": inside,
	}
	rest := maps.Clone(where)
	// A mount namespace for all of it: the image is where the document says, and the archives are ours.
	var script strings.Builder
	script.WriteString(`set -eu
mount -t tmpfs none /srv; mkdir /srv/image; mount --bind "$ROOT" /srv/image
mkdir -p /var/cache/apt/archives; mount --bind "$HOST/archives" /var/cache/apt/archives
cd "$HOST"
`)
	for _, line := range documented(t) {
		delete(rest, line)
		switch where[line] {
		case inside: // with what the signing host sent
			script.WriteString("install -D -m 644 manifests/tool_*.mdm -t /srv/image/var/lib/midplane/digsig/incoming\ncp archives/tool_3_amd64.deb /srv/image/root\n" +
				"echo '+ '" + quote(line) + "\nchroot /srv/image sh -c 'cd /root; set -e; '" + quote(line) + "\n")
		case elsewhere:
		default:
			script.WriteString("echo '+ '" + quote(line) + "\n" + line + "\n")
		}
	}
	script.WriteString("chroot /srv/image /usr/bin/tool\necho all done\n")
	if len(rest) > 0 {
		t.Errorf("not in the document: %v", rest)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", "sh", "-c", script.String())
	cmd.Env = append(os.Environ(), "ROOT="+root, "HOST="+s.Host, "CREDENTIALS_DIRECTORY="+filepath.Join(s.Host, "credentials"), "PATH="+filepath.Join(s.Host, "bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "all done\n") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	s.WantGood("at the end of the document")
	if got := s.manifests(); len(got) != 1 || got[0] != "tool_3_amd64.mdm" {
		t.Errorf("manifests of the package: %v", got)
	}
	if out := s.Run("revoke", "--store", s.Store, "--show"); !strings.Contains(out, `name "openssl" below 1798761600 "CVE-2027-1"`) {
		t.Errorf("revoked: %s", out)
	}
	if link, err := os.Readlink(filepath.Join(root, "etc/systemd/system/sysinit.target.wants/midplane-digsig.service")); err != nil {
		t.Errorf("the unit is not enabled: %s, %v", link, err)
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
