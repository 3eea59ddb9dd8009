package archtest

import (
	"bytes"
	"context"
	"fmt"
	"go/ast"
	"io"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A documented command and how it is known to work: run here, or by tests that need root, a lab or long.
type documented struct {
	line string
	by   []string // tests that run it, package.Name
	make bool     // it is a verb of the Makefile that exists
	node bool     // run with --check, on the documented configuration

	run     bool
	ends    bool   // it ends by itself; else it runs until the first line of output
	stdin   string // what it reads
	out     string // a line that it writes
	against string // a documented command that runs meanwhile
}

var commands = []documented{
	{line: "make run", make: true, by: []string{"cli.TestDevHints", "cli.TestDevScreen", "cli_test.TestScripts"}},
	{line: "make test", make: true, by: []string{"archtest.TestDocumentedCommands"}}, // this runs in it
	{line: "midplane node --identity node1 --bearer udp,name=u1,localip=10.0.0.1", node: true, by: []string{"interop.TestIntegrationTool", "interop.TestIntegrationDaemonEnds"}},
	{line: "midplane node --bearer eth,device=eth0", node: true, by: []string{"interop.TestIntegrationTool"}},
	{line: "midplane node --config /etc/midplane/node.toml", node: true, by: []string{"interop.TestIntegrationDaemonEnds"}},
	{line: "midplane node --config /etc/midplane/node.toml --check", node: true},
	{line: "midplane node --fib", node: true, by: []string{"cli_test.TestScripts", "daemon_test.TestIntegrationFIBsSurviveKills"}},
	{line: `ln -s "$(command -v midplane)" tipc`, run: true, ends: true},
	{line: "./tipc link list", run: true, ends: true, out: "broadcast-link: up"},
	{line: "midplane tipc pipe 4711:7", run: true, ends: true, stdin: "hello\n", against: "midplane tipc pipe --listen 4711:7"},
	{line: "midplane tipc pipe --listen 4711:7", run: true, ends: true, out: "hello"},
	{line: "midplane tipc pipe --type rdm 4711:0:99 < lines", run: true, ends: true, against: "midplane tipc pipe --type rdm --listen 4711:0:99"},
	{line: "midplane tipc pipe --type rdm --listen 4711:0:99", run: true, out: "a line of the file"},
	{line: "midplane tipc subscribe 4711", run: true, out: "published 4711:", against: "midplane tipc pipe --listen 4711:7"},
	{line: "midplane tipc subscribe 4711:0:99", run: true, out: "published 4711:", against: "midplane tipc pipe --listen 4711:7"},
	{line: "midplane tipc subscribe 0", run: true, out: "published 0:"},
	{line: "midplane tipc subscribe 2", run: true, out: "published 2:"},
	{line: "midplane fib add blue id 10", by: []string{"cli_test.TestScripts"}},
	{line: "midplane fib port add eth1 fib blue addr 192.0.2.1/24", by: []string{"daemon_test.TestIntegrationDocumentedFIB"}},
	{line: "midplane fib route add default via 192.0.2.254 dev eth1 fib blue", by: []string{"daemon_test.TestIntegrationDocumentedFIB"}},
	{line: "midplane fib route show fib blue", by: []string{"cli_test.TestScripts"}},
	{line: "midplane fib route get 198.51.100.7 fib blue", by: []string{"daemon_test.TestIntegrationDocumentedFIB"}},
	{line: "midplane fib exec blue -- curl http://198.51.100.7/", by: []string{"daemon_test.TestIntegrationDocumentedFIB"}},
	{line: "midplane fib load rib.20261125.bz2 fib blue dev eth1 replace", by: []string{"daemon_test.TestIntegrationDocumentedFIB"}},
	{line: "midplane fib feed add frr kind fpm", by: []string{"daemon_test.TestIntegrationDocumentedFIB"}},
	{line: "midplane fib diff fib blue table 10", by: []string{"daemon_test.TestIntegrationDocumentedFIB"}},
	{line: "midplane fib stats", by: []string{"cli_test.TestScripts"}},
	{line: "midplane digsig keygen release", by: []string{"cli_test.TestScripts"}},
	{line: "midplane digsig sign --key file:release.key --name myapp --version 3 ./myapp", by: []string{"cli_test.TestScripts"}},
	{line: "midplane digsig sign --key agent: --manifest tree.mdm ./build", by: []string{"cli_test.TestScripts", "cli_test.TestDigsigAgent"}},
	{line: "midplane digsig verify --pub release.pub ./myapp", by: []string{"cli_test.TestScripts"}},
	{line: "midplane digsig manifest make --dpkg --root /srv/image --key file:release.key --out manifests", by: []string{"dpkg_test.TestIntegrationDebian", "dpkg_test.TestIntegrationDebianDocument"}},
	{line: "midplane digsig revoke --key file:officer.key --below myapp=3 --why CVE-2027-1234", by: []string{"cli_test.TestScripts"}},
	{line: "midplane digsig explain /usr/bin/ssh", by: []string{"cli_test.TestScripts"}},
	{line: "midplane digsig learn", by: []string{"cli_test.TestIntegrationDigsigEnforcer"}},
	{line: "midplane digsig learn review --exclude '/home/*' > learnt.txt", by: []string{"cli_test.TestIntegrationDigsigLearn"}},
	{line: "midplane digsig manifest make --from-list learnt.txt --key file:release.key --out learnt.mdm", by: []string{"cli_test.TestIntegrationDigsigLearn", "cli_test.TestScripts"}},
	{line: "midplane digsig enforce --check", by: []string{"cli_test.TestIntegrationDigsigEnforcer"}},
	{line: "midplane digsig status", by: []string{"cli_test.TestIntegrationDigsigEnforcer", "cli_test.TestScripts"}},
	{line: "midplane digsig audit tail -f", by: []string{"cli_test.TestIntegrationDigsigEnforcer"}},
	{line: "midplane digsig keygen --purpose revocations,policy officer", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "mkdir manifests", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "midplane digsig manifest make --dpkg --unowned --root /srv/image", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "install -D -m 644 release.pub officer.pub -t /srv/image/etc/midplane/digsig/trust", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "install -D -m 644 manifests/*.mdm -t /srv/image/etc/midplane/digsig/manifests", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "midplane digsig sign --key file:release.key --name midplane midplane", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "install -m 755 midplane /srv/image/usr/bin/midplane", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "install -m 644 packaging/apt/90midplane-digsig /srv/image/etc/apt/apt.conf.d/", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "install -m 644 packaging/systemd/midplane-digsig.service packaging/systemd/midplane-digsig-guardian.service /srv/image/usr/lib/systemd/system/", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "chroot /srv/image systemctl enable midplane-digsig-guardian midplane-digsig", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "midplane digsig verify --store /srv/image/etc/midplane/digsig /srv/image", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "apt-get -y --download-only upgrade", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "midplane digsig manifest make --deb --key file:release.key --out manifests /var/cache/apt/archives/*.deb", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "midplane digsig dpkg before ./tool_3_amd64.deb && dpkg -i ./tool_3_amd64.deb; midplane digsig dpkg after", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "midplane digsig revoke --key file:officer.key --store /srv/image/etc/midplane/digsig --below openssl=1798761600 --why CVE-2027-1", by: []string{"dpkg_test.TestIntegrationDebianDocument"}},
	{line: "midplane digsig enforce --reload", by: []string{"cli_test.TestIntegrationDigsigEnforcer"}},
	{line: "midplane aem bench --for 1s", run: true, ends: true, out: "  goroutines "},
	{line: "midplane aem top /run/gateway/aem", by: []string{"aemtool.TestTopText", "aemtool.TestTopLive"}},
	{line: "midplane fib bench routes 10000 changes 1000", run: true, ends: true, out: "10000    lookup"},
}

// Where a user reads.
var userDocs = []string{"README.md", "docs/cli.md", "docs/conformance.md", "docs/performance.md", "docs/dependencies.md",
	"docs/digsig.md", "docs/digsig-enforce.md", "docs/digsig-cases.md", "docs/digsig-debian.md"}

var (
	fence      = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	codeSpan   = regexp.MustCompile("`([^`\n]+)`")
	inlineMake = regexp.MustCompile(`^make ([a-z]+)\b`)
	inlineVerb = regexp.MustCompile(`^midplane((?: [a-z]+)+)`)
)

// Every command of the documentation is run, here or by the tests on the list, and the list has no others. Indented
// blocks are not for commands: nothing would find them.
func TestDocumentedCommands(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the commands are for a Unix shell")
	}
	root := filepath.Join("..", "..")
	found := map[string]bool{}
	var configs, makes, verbs []string
	for _, name := range userDocs {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fence.FindAllStringSubmatch(string(b), -1) {
			switch m[1] {
			case "sh":
				for line := range strings.Lines(m[2]) {
					line, _, _ = strings.Cut(line, "  #")
					if line = strings.TrimSpace(line); line != "" {
						found[line] = true
					}
				}
			case "toml":
				configs = append(configs, m[2])
			}
		}
		rest := fence.ReplaceAllString(string(b), "")
		for line := range strings.Lines(rest) {
			if strings.HasPrefix(line, "    ") {
				t.Errorf("%s: use a fence for %q", name, strings.TrimSpace(line))
			}
		}
		for _, m := range codeSpan.FindAllStringSubmatch(rest, -1) {
			if v := inlineMake.FindStringSubmatch(m[1]); v != nil {
				makes = append(makes, v[1])
			}
			if v := inlineVerb.FindStringSubmatch(m[1]); v != nil {
				verbs = append(verbs, strings.TrimSpace(v[1]))
			}
		}
	}

	tests := map[string]bool{}
	for _, s := range readModule(t) {
		for _, d := range s.ast.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && f.Recv == nil {
				tests[path.Base(s.pkg)+"."+f.Name.Name] = true
				tests[s.ast.Name.Name+"."+f.Name.Name] = true
			}
		}
	}
	w := newWorkshop(t, configs)
	byLine := map[string]documented{}
	for _, c := range commands {
		byLine[c.line] = c
		if !found[c.line] {
			t.Errorf("%q is not documented any more", c.line)
		}
		delete(found, c.line)
		for _, name := range c.by {
			if !tests[name] {
				t.Errorf("%q: there is no test %s", c.line, name)
			}
		}
		if !c.run && !c.node && len(c.by) == 0 {
			t.Errorf("%q is not run", c.line)
		}
	}
	for line := range found {
		t.Errorf("nothing runs %q", line)
	}
	for _, c := range commands {
		t.Run(c.line, func(t *testing.T) {
			switch {
			case c.make:
				w.makes(t, strings.TrimPrefix(c.line, "make "))
			case c.node:
				w.check(t, c.line)
			case c.run:
				w.run(t, c, byLine)
			}
		})
	}
	t.Run("inline", func(t *testing.T) {
		if len(makes) == 0 || len(verbs) == 0 {
			t.Error("no verbs found in the text")
		}
		for _, m := range makes {
			w.makes(t, m)
		}
		for _, v := range verbs {
			w.sh(t, "midplane "+v+" --help >/dev/null", "")
		}
	})
}

// A workshop is a directory with the program, a running node with a neighbour, and the documented configuration.
type workshop struct {
	dir, config string
	env         []string
}

func newWorkshop(t *testing.T, configs []string) *workshop {
	t.Helper()
	dir, err := os.MkdirTemp("", "mp") // short: Unix sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &workshop{dir: dir, config: filepath.Join(dir, "node.toml")}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "midplane"), "midplane/cmd/midplane").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.env = append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"), "MIDPLANE_CONTROL="+filepath.Join(dir, "control"))
	if len(configs) != 1 {
		t.Fatalf("%d configurations are documented, want one", len(configs))
	}
	for name, text := range map[string]string{w.config: configs[0], filepath.Join(dir, "lines"): "a line of the file\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ports := freePorts(t)
	w.startNode(t, 1, ports)
	w.startNode(t, 0, ports)
	return w
}

// freePorts returns two UDP ports that are free now.
func freePorts(t *testing.T) (ports [2]int) {
	t.Helper()
	for i := range ports {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ports[i] = c.LocalAddr().(*net.UDPAddr).Port
	}
	return ports
}

// startNode starts one of two nodes; the first has the usual control socket.
func (w *workshop) startNode(t *testing.T, i int, ports [2]int) {
	node := exec.Command(filepath.Join(w.dir, "midplane"), "node", "--identity", fmt.Sprintf("node%d", i+1),
		"--control", filepath.Join(w.dir, []string{"control", "neighbour"}[i]),
		"--bearer", fmt.Sprintf("udp,name=u1,localip=127.0.0.1,localport=%d,remoteip=127.0.0.1:%d", ports[i], ports[1-i]))
	node.Env = w.env
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = node.Process.Signal(os.Interrupt)
		_ = node.Wait()
	})
	if i > 0 {
		return
	}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("unix", filepath.Join(w.dir, "control")); err == nil {
			c.Close()
			return
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// makes wants a verb of the Makefile.
func (w *workshop) makes(t *testing.T, verb string) {
	t.Helper()
	if _, err := exec.LookPath("make"); err != nil {
		t.Skip("make is not installed: apt-get install make")
	}
	cmd := exec.Command("make", "-n", verb)
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) == 0 {
		t.Errorf("make %s: %v\n%s", verb, err, out)
	}
}

// check lets the daemon check what it would do.
func (w *workshop) check(t *testing.T, line string) {
	t.Helper()
	line = strings.ReplaceAll(line, "/etc/midplane/node.toml", w.config)
	if !strings.HasSuffix(line, " --check") {
		line += " --check"
	}
	if out := w.sh(t, line, ""); !strings.Contains(out, "right") {
		t.Errorf("%s: %s", line, out)
	}
}

func (w *workshop) sh(t *testing.T, line, stdin string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := w.command(ctx, line)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

func (w *workshop) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	if !strings.ContainsAny(line, "<$") { // so that a signal reaches the program itself
		words := strings.Fields(line)
		cmd = exec.CommandContext(ctx, filepath.Join(w.dir, filepath.Base(words[0])), words[1:]...)
		if words[0] != "midplane" && words[0] != "./tipc" || strings.Contains(line, ">") {
			cmd = exec.CommandContext(ctx, "sh", "-c", line)
		}
	}
	cmd.Dir, cmd.Env = w.dir, w.env
	return cmd
}

// run runs a command, and before it what it runs against. That one's output is what is expected of both.
func (w *workshop) run(t *testing.T, c documented, byLine map[string]documented) {
	if c.against == "" && strings.Contains(c.line, "--listen") {
		for _, other := range commands {
			if other.against == c.line && other.ends {
				return // it is run with that one
			}
		}
		t.Fatal("nothing talks to it")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var server *started
	if c.against != "" {
		s, ok := byLine[c.against]
		if !ok {
			t.Fatalf("%q is not on the list", c.against)
		}
		server = w.start(t, ctx, s)
		if strings.Contains(c.line, " pipe ") {
			w.sh(t, "midplane tipc subscribe 4711 --count 1 >/dev/null", "")
		}
	}
	client := w.start(t, ctx, c)
	if c.out != "" {
		client.expect(t, c.out)
	}
	if c.ends {
		client.finish(t)
		if server != nil {
			server.expect(t, byLine[c.against].out)
		}
	}
	client.stop()
	if server != nil {
		server.stop()
	}
}

// started is a command that runs.
type started struct {
	cmd   *exec.Cmd
	lines chan string
	errs  *bytes.Buffer
	keep  io.Closer // its standard input
}

func (w *workshop) start(t *testing.T, ctx context.Context, c documented) *started {
	t.Helper()
	s := &started{cmd: w.command(ctx, c.line), lines: make(chan string, 100), errs: &bytes.Buffer{}}
	s.cmd.Stderr = s.errs
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.keep = in
	if c.stdin != "" {
		fmt.Fprint(in, c.stdin)
		in.Close()
	}
	go func() {
		defer close(s.lines)
		buf, line := make([]byte, 4096), ""
		for {
			n, err := out.Read(buf)
			line += string(buf[:n])
			for {
				l, rest, ok := strings.Cut(line, "\n")
				if !ok {
					break
				}
				s.lines <- l
				line = rest
			}
			if err != nil {
				return
			}
		}
	}()
	return s
}

// expect waits for a line that begins so.
func (s *started) expect(t *testing.T, want string) {
	t.Helper()
	for l := range s.lines { // the context ends it
		if strings.HasPrefix(l, want) {
			return
		}
	}
	t.Errorf("%v did not write %q: %s", s.cmd.Args, want, s.errs)
}

func (s *started) finish(t *testing.T) {
	t.Helper()
	for range s.lines {
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("%v: %v\n%s", s.cmd.Args, err, s.errs)
	}
}

// stop ends what runs still.
func (s *started) stop() {
	s.keep.Close()
	if s.cmd.ProcessState == nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	}
}
