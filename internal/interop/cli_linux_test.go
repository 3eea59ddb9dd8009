//go:build linux

package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"midplane/internal/lab"
	"midplane/tipc"
)

// The two nodes of a comparison of tools. The names are equally long, so that exchanging them moves no column.
const (
	guestName = "linux"
	oursName  = "ourss"
)

// toolPair is a guest and a daemon of ours in one cluster, each asked by its own tipc tool.
type toolPair struct {
	t       *testing.T
	guest   *lab.Guest
	host    *lab.Host
	dir     string
	binary  string
	tool    string // a link to binary by the name of tipc
	control string
	node    *lab.Proc
	bearer  string // the bearer's name without its medium: the same on both
	words   string // the bearer as key words of the tool
	sides   [2]side
}

// side is what one of the nodes calls things.
type side struct {
	line *strings.Replacer // from the words of a test to this node's
	norm *strings.Replacer // from this node's answers to words that both have in common
}

// newToolPair makes the cluster; medium is udp or eth.
func newToolPair(t *testing.T, medium string) *toolPair {
	t.Helper()
	lab.Require(t)
	p := &toolPair{t: t, dir: t.TempDir(), binary: lab.Binary(t), bearer: "u0", words: "media udp name u0"}
	p.control, p.tool = filepath.Join(p.dir, "control"), filepath.Join(p.dir, "tipc")
	if err := os.Symlink(p.binary, p.tool); err != nil {
		t.Fatal(err)
	}
	net := lab.NewNetwork(t)
	p.guest = net.Guests(1, lab.GuestConfig{Name: guestName})[0]
	p.host = net.Host(1)
	if medium == "eth" {
		p.bearer, p.words = "eth0", "media eth device eth0"
		p.guest.EnableEth(0)
	} else {
		p.guest.EnableUDP(0)
	}
	p.node = p.start(p.control, p.spec())
	p.guest.WaitPeers(1)
	return p
}

// spec is the bearer as the daemon's flag has it.
func (p *toolPair) spec() string {
	if p.bearer == "eth0" {
		return "eth,device=eth0"
	}
	return "udp,name=u0,localip=" + p.host.Addr(0).String()
}

// start starts a daemon of ours and waits until it answers.
func (p *toolPair) start(control string, bearers ...string) *lab.Proc {
	p.t.Helper()
	args := []string{p.binary, "node", "--identity", oursName, "--control", control}
	for _, b := range bearers {
		args = append(args, "--bearer", b)
	}
	node := p.host.Start(args...)
	if _, ok := lab.Until(20*time.Second, func() bool {
		return p.run(p.binary, "tipc", "--control", control, "node", "get", "address").Code == 0
	}); !ok {
		p.t.Fatalf("our node does not answer: %s", node.Stderr)
	}
	return node
}

// theirs runs iproute2's tool in the guest.
func (p *toolPair) theirs(line string) lab.Result {
	p.t.Helper()
	return p.theirsAll(line)[0]
}

// theirsAll is theirs for many commands, one after the other.
func (p *toolPair) theirsAll(lines ...string) (results []lab.Result) {
	p.t.Helper()
	var script strings.Builder
	for _, line := range lines {
		fmt.Fprintf(&script, "tipc %s 2>/tmp/tool.err; printf '\\001%%d\\001' $?; cat /tmp/tool.err; printf '\\002'\n", p.sides[0].line.Replace(line))
	}
	r, err := p.guest.Run(within(p.t, time.Minute+time.Duration(len(lines))*2*time.Second), script.String())
	if err != nil {
		p.t.Fatalf("tipc %s: %v", lines[0], err)
	}
	for answer := range strings.SplitSeq(strings.TrimSuffix(r.Stdout, "\002"), "\002") {
		part := strings.Split(answer, "\001")
		if len(part) != 3 {
			p.t.Fatalf("tipc %s: %q", lines[0], answer)
		}
		code, err := strconv.Atoi(part[1])
		if err != nil {
			p.t.Fatal(err)
		}
		results = append(results, lab.Result{Stdout: part[0], Stderr: part[2], Code: code})
	}
	if len(results) != len(lines) {
		p.t.Fatalf("%d answers to %d commands", len(results), len(lines))
	}
	return results
}

// ours runs our tool, by one of its two names.
func (p *toolPair) ours(asTipc bool, line string) lab.Result {
	p.t.Helper()
	argv := []string{p.binary, "tipc"}
	if asTipc {
		argv = []string{p.tool}
	}
	argv = append(argv, strings.Fields(p.sides[1].line.Replace(line))...)
	return p.run(append(argv, "--control", p.control)...)
}

// run runs a program on the host of our node to its end.
func (p *toolPair) run(argv ...string) lab.Result {
	p.t.Helper()
	proc := p.host.Start(argv...)
	_ = proc.Stdin.Close()
	code, err := proc.Wait(within(p.t, time.Minute))
	if err != nil {
		p.t.Fatalf("%v: %v", argv, err)
	}
	return lab.Result{Stdout: proc.Stdout.String(), Stderr: proc.Stderr.String(), Code: code}
}

// learn finds out the addresses and ports of both nodes, which differ from run to run, for comparisons without them.
func (p *toolPair) learn() {
	p.t.Helper()
	names, ips := [2]string{guestName, oursName}, [2]string{p.guest.Addr(0).String(), p.host.Addr(0).String()}
	services := [2]string{"6002", "6001"}
	for i := range p.sides {
		k := 1 - i
		p.sides[i].line = strings.NewReplacer("BEARER", p.words, "PEER", names[k], "SELFIP", ips[i],
			"LINK", fmt.Sprintf("%s:%s-%s:%s", names[i], p.bearer, names[k], p.bearer))
	}
	ports := []string{}
	for _, list := range []string{p.theirs("socket list").Stdout, p.ours(true, "socket list").Stdout} {
		for _, m := range regexp.MustCompile(`(?m)^socket (\d+)$`).FindAllStringSubmatch(list, -1) {
			ports = append(ports, m[1])
		}
	}
	hashes := [2]string{strings.TrimSpace(p.theirs("node get address").Stdout), strings.TrimSpace(p.ours(true, "node get address").Stdout)}
	for i := range p.sides {
		var pairs []string
		for who, k := range map[string]int{"SELF": i, "PEER": 1 - i} {
			n, err := strconv.ParseUint(hashes[k], 16, 32)
			if err != nil {
				p.t.Fatalf("address %q: %v", hashes[k], err)
			}
			decimal, legacy := fmt.Sprint(n), fmt.Sprintf("%d.%d.%d", n>>24, n>>12&0xfff, n&0xfff)
			pairs = append(pairs, fmt.Sprintf("%-11s", decimal), fmt.Sprintf("%-11s", who+"DEC"), decimal, who+"DEC",
				fmt.Sprintf("%-14s", legacy), fmt.Sprintf("%-14s", who+"ZCN"), legacy, who+"ZCN",
				hashes[k], who+"HASH", names[k], who, ips[k], who+"IP", services[k], who+"TYPE")
		}
		for _, port := range ports {
			pairs = append(pairs, fmt.Sprintf("%-10s ", port), "PORT ", port, "PORT")
		}
		p.sides[i].norm = strings.NewReplacer(pairs...)
	}
}

// A comparison is a command that both tools answer in the same way.
type comparison struct {
	line     string
	textOnly bool   // Linux's tool has no JSON for it and gives text; ours gives JSON
	sort     bool   // the order depends on addresses, or on nothing
	counters bool   // counts what happens meanwhile: numbers are not compared
	medium   string // on which only; empty: any
}

var comparisons = []comparison{
	{line: "bearer list", textOnly: true},
	{line: "bearer get priority BEARER", textOnly: true},
	{line: "bearer get tolerance BEARER", textOnly: true},
	{line: "bearer get window BEARER", textOnly: true},
	{line: "bearer get mtu BEARER", textOnly: true, medium: "udp"},
	{line: "bearer get media udp name u0 localip", textOnly: true, medium: "udp"},
	{line: "bearer get media udp name u0 localport", textOnly: true, medium: "udp"},
	{line: "bearer get media udp name u0 remoteip", textOnly: true, medium: "udp"},
	{line: "bearer get media udp name u0 remoteport", textOnly: true, medium: "udp"},
	{line: "media list", textOnly: true},
	{line: "media get priority media udp", textOnly: true},
	{line: "media get tolerance media eth", textOnly: true},
	{line: "media get window media udp", textOnly: true},
	{line: "media get window media eth", textOnly: true},
	{line: "media get mtu media udp", textOnly: true},
	{line: "link list"},
	{line: "link get priority link LINK"},
	{line: "link get tolerance link LINK"},
	{line: "link get window link LINK"},
	{line: "link get window link broadcast-link"},
	{line: "link get broadcast"},
	{line: "link stat show", counters: true},
	{line: "link stat show link LINK", counters: true},
	{line: "link stat show link all", counters: true},
	{line: "link stat show link broadcast-link", counters: true},
	{line: "link stat show link nosuch"},
	{line: "link monitor summary"},
	{line: "link monitor list"},
	{line: "link monitor list BEARER"},
	{line: "link monitor get threshold", textOnly: true}, // Linux's tool writes ["threshold":32]
	{line: "nametable show", sort: true},
	{line: "node list", textOnly: true},
	{line: "node get address", textOnly: true},
	{line: "node get identity", textOnly: true},
	{line: "node get netid", textOnly: true},
	{line: "node get clusterid", textOnly: true},
	{line: "socket list", textOnly: true, sort: true},
	// Abbreviations.
	{line: "lin st sh link LINK", counters: true},
	{line: "na sh", sort: true},
	{line: "so l", textOnly: true, sort: true},
	{line: "b g pr BEARER", textOnly: true},
}

var (
	counters   = regexp.MustCompile(`((?:packets|fragments|bundles|naks|defs|dups|states|probes|acks|retrans|max|avg|sample|average|Congestion link):)\d+(?:/\d+)?|\b\d+(%)`)
	counterKey = regexp.MustCompile(`("(?:[rt]x (?:packets|states|naks)|fragments|fragmented|bundles|bundled|naks|defs|dups|probes|acks|retrans|tx profile sample|packets average|congestion link|send queue max|avg|-?\d+[-\d]*)": ?)\d+`)
)

// common brings an answer to what both nodes should say.
func (c comparison) common(s side, text string) string {
	text = s.norm.Replace(text)
	if c.counters {
		text = counterKey.ReplaceAllString(counters.ReplaceAllString(text, "${1}N${2}"), "${1}N")
	}
	if !c.sort {
		return text
	}
	for _, j := range [][3]string{{"[{", "},{", "}]\n"}, {"[ {\n", "\n    },{\n", "\n    } ]\n"}} {
		if body, ok := strings.CutPrefix(text, j[0]); ok && strings.HasSuffix(body, j[2]) {
			parts := strings.Split(strings.TrimSuffix(body, j[2]), j[1])
			slices.Sort(parts)
			return j[0] + strings.Join(parts, j[1]) + j[2]
		}
	}
	parts := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if strings.HasPrefix(text, "socket ") {
		parts = strings.Split(strings.TrimPrefix(strings.TrimSuffix(text, "\n"), "socket "), "\nsocket ")
	}
	slices.Sort(parts)
	return strings.Join(parts, "\n")
}

// TestIntegrationTool gives the same commands to iproute2's tool about a Linux node and to ours about our node, and
// wants the same answers, octet by octet, after the nodes' names and addresses are exchanged.
func TestIntegrationTool(t *testing.T) {
	for _, medium := range []string{"udp", "eth"} {
		t.Run(medium, func(t *testing.T) {
			p := newToolPair(t, medium)
			p.fill()
			var wanted []comparison
			var commands []string
			for _, c := range comparisons {
				if c.medium == "" || c.medium == medium {
					wanted = append(wanted, c)
					for _, form := range forms {
						commands = append(commands, form+c.line)
					}
				}
			}
			theirs := p.theirsAll(commands...)
			for i, c := range wanted {
				t.Run(c.line, func(t *testing.T) { p.compare(t, c, theirs[i*len(forms):]) })
			}
			p.changes(t, medium)
			p.mistakes(t, medium)
			p.goingAndComing(t, medium)
		})
	}
}

// fill gives both nodes the same sockets: one bound, a service, and both ends of connections to each other.
func (p *toolPair) fill() {
	t := p.t
	t.Helper()
	p.sides[0].line = strings.NewReplacer()
	p.sides[1].line = p.sides[0].line
	p.guest.Program("serve.py", "--type", "rdm", "--service", "5000:0:99").Expect("ready")
	p.host.Start(p.binary, "tipc", "pipe", "--control", p.control, "--type", "rdm", "--listen", "5000:0:99")
	p.host.Start(p.binary, "tipc", "pipe", "--control", p.control, "--listen", "--keep", "6001:1")
	server := p.guest.Program("serve.py", "--service", "6002:1")
	server.Expect("ready")
	awaitGuest(t, p.guest, tipc.ServiceAddr{Type: 6001, Instance: 1})
	p.guest.Program("client.py", "--to", "6001:1", "--hold").Expect("sent")
	client := p.host.Start(p.binary, "tipc", "pipe", "--control", p.control, "6002:1")
	if _, err := client.Stdin.Write([]byte("hello\n")); err != nil {
		t.Fatal(err)
	}
	server.Expect("accepted")
	if r := p.run(p.binary, "tipc", "subscribe", "--control", p.control, "5000", "--count", "2", "--timeout", "20s"); strings.Count(r.Stdout, "published") != 2 {
		t.Fatalf("our node sees %q", r.Stdout)
	}
	for _, count := range []func() string{
		func() string { return p.theirs("socket list").Stdout },
		func() string { return p.ours(true, "socket list").Stdout },
	} {
		if _, ok := lab.Until(10*time.Second, func() bool { return strings.Count(count(), "via") == 2 && strings.Count(count(), "bound") == 3 }); !ok {
			t.Fatalf("sockets: %s", count())
		}
	}
	p.learn()
}

var forms = []string{"", "-j ", "-j -p "}

// compare wants the same answer to one command, in all forms.
func (p *toolPair) compare(t *testing.T, c comparison, linux []lab.Result) {
	for i, form := range forms {
		theirs, ours := linux[i], p.ours(i > 0, form+c.line)
		if theirs.Code != 0 || ours.Code != 0 || theirs.Stderr != "" || ours.Stderr != "" {
			t.Errorf("%s: exit %d %q and %d %q", form, theirs.Code, theirs.Stderr, ours.Code, ours.Stderr)
			continue
		}
		if form != "" && c.textOnly {
			if json.Valid([]byte(theirs.Stdout)) && strings.HasPrefix(theirs.Stdout, "[") {
				t.Errorf("%s: Linux's tool has JSON: %s", form, theirs.Stdout)
			}
			if !json.Valid([]byte(ours.Stdout)) || !strings.HasPrefix(ours.Stdout, "[") {
				t.Errorf("%s: no JSON: %s", form, ours.Stdout)
			}
			continue
		}
		if diff := cmp.Diff(c.common(p.sides[0], theirs.Stdout), c.common(p.sides[1], ours.Stdout)); diff != "" {
			t.Errorf("%s-Linux +ours\n%s\nLinux:\n%s\nours:\n%s", form, diff, theirs.Stdout, ours.Stdout)
		}
	}
}

// changes gives both nodes the same commands that change something, and looks at what they did.
func (p *toolPair) changes(t *testing.T, medium string) {
	t.Run("changes", func(t *testing.T) {
		for _, group := range []struct {
			medium string
			set    string
			shown  []string
		}{
			{"", "link set priority 12 link LINK", []string{"link get priority link LINK", "link list"}},
			{"", "link set tolerance 2000 link LINK", []string{"link get tolerance link LINK"}},
			{"", "link set window 100 link LINK", []string{"link get window link LINK", "bearer get window BEARER"}},
			{"", "link set window 80 link broadcast-link", []string{"link get window link broadcast-link"}},
			{"", "link set broadcast REPLICAST", []string{"link get broadcast", "-j link get broadcast"}},
			{"", "link set broadcast BROADCAST", []string{"link get broadcast"}},
			{"", "link set broadcast AUTOSELECT", []string{"link get broadcast"}},
			{"", "link set broadcast AUTOSELECT ratio 25", []string{"link get broadcast", "-j link get broadcast"}},
			{"", "link stat reset link broadcast-link", []string{"link stat show link broadcast-link"}},
			{"", "link stat reset link LINK", nil},
			{"", "link monitor set threshold 7", []string{"link monitor get threshold", "link monitor summary"}},
			{"", "media set priority 9 media udp", []string{"media get priority media udp"}},
			{"", "media set tolerance 1600 media udp", []string{"media get tolerance media udp"}},
			{"", "media set window 60 media eth", []string{"media get window media eth"}},
			{"", "media set mtu 20000 media udp", []string{"media get mtu media udp"}},
			{"", "bearer set priority 13 BEARER", []string{"bearer get priority BEARER", "link get priority link LINK"}},
			{"", "bearer set tolerance 1000 BEARER", []string{"bearer get tolerance BEARER", "link get tolerance link LINK"}},
			{"", "bearer set window 70 BEARER", []string{"bearer get window BEARER", "link get window link LINK"}},
			{"udp", "bearer set mtu 10000 BEARER", []string{"bearer get mtu BEARER"}},
		} {
			if group.medium != "" && group.medium != medium {
				continue
			}
			theirs, ours := p.theirs(group.set), p.ours(true, group.set)
			if theirs.Code != 0 || ours != (lab.Result{}) {
				t.Errorf("%s: Linux %+v, ours %+v", group.set, theirs, ours)
				continue
			}
			p.guest.WaitPeers(1) // a change of priority resets the link
			if len(group.shown) == 0 {
				continue
			}
			for i, theirs := range p.theirsAll(group.shown...) {
				line := group.shown[i]
				ours := p.ours(false, line)
				c := comparison{line: line}
				if diff := cmp.Diff(c.common(p.sides[0], theirs.Stdout), c.common(p.sides[1], ours.Stdout)); diff != "" || ours.Stdout == "" {
					t.Errorf("after %s: %s: -Linux +ours\n%s", group.set, line, diff)
				}
			}
		}
	})
}

// mistakes are refused by both tools. Exit codes are our own: Linux's tool has 255 for all. lenient ones it accepts.
func (p *toolPair) mistakes(t *testing.T, medium string) {
	type mistake struct {
		line    string
		code    int
		says    string
		lenient bool
	}
	list := []mistake{
		{"bearer set priority 32 BEARER", 1, "priority 32: want 0 to 31", false},
		{"bearer enable BEARER", 1, "enabled already", false},
		{"bearer enable media eth device nosuch0", 1, "bearer eth:nosuch0: device nosuch0: no such network interface", false},
		{"bearer disable media eth device nosuch0", 1, "no bearer eth:nosuch0", false},
		{"bearer get mtu media eth device eth0", 2, "udp bearers only", false},
		{"bearer set mtu 2000 media eth device eth0", 2, "udp bearers only", false},
	}
	if medium == "udp" {
		list[1] = mistake{"bearer enable BEARER localip SELFIP", 1, "bearer udp:u0: it is enabled already", false}
		list = append(list, []mistake{
			{"", 2, "command is missing", false},
			{"foo", 2, `"foo"`, false},
			{"n", 2, `ambiguous command "n"`, false},
			{"link", 2, "command is missing", false},
			{"link foo", 2, `"foo"`, false},
			{"link get", 2, "command is missing", false},
			{"link get foo", 2, `"foo"`, false},
			{"link get tolerance", 2, "missing link", false},
			{"link get tolerance link", 2, "link needs a value", false},
			{"link get tolerance link nosuch", 1, "no link nosuch", false},
			{"link get priority link broadcast-link", 1, "broadcast-link has no priority", true},
			{"link set tolerance", 2, "missing value", false},
			{"link set tolerance 100", 2, "missing link", false},
			{"link set tolerance 100 link nosuch", 1, "no link nosuch", false},
			{"link set tolerance x link LINK", 2, "want a number", false},
			{"link set tolerance 49 link LINK", 1, "50 to 30000", false},
			{"link set tolerance 30001 link LINK", 1, "50 to 30000", false},
			{"link set priority 32 link LINK", 1, "0 to 31", false},
			{"link set window 49 link LINK", 1, "50 to 8191", false},
			{"link set window 8192 link LINK", 1, "50 to 8191", false},
			{"link set broadcast foo", 2, `"foo"`, false},
			{"link set broadcast", 2, "missing method", false},
			{"link stat reset", 2, "missing link", false},
			{"link stat reset link nosuch", 1, "no link nosuch", false},
			{"link monitor set threshold", 2, "missing threshold", false},
			{"link monitor foo", 2, `"foo"`, false},
			{"node get foo", 2, `"foo"`, false},
			{"node list extra", 2, `"extra"`, true},
			{"node set", 2, "command is missing", false},
			{"node set identity", 2, "missing identity", false},
			{"node set identity other", 1, "identity: ", false},
			{"node set address 1.1.1", 1, "address: ", false},
			{"node set netid 5", 1, "netid: ", false},
			{"peer", 2, "command is missing", false},
			{"peer remove", 2, "command is missing", false},
			{"peer remove address", 2, "missing address", false},
			{"peer remove address x", 2, "Z.C.N", false},
			{"peer remove address 1.1.9", 1, "no such peer node", false},
			{"peer remove identity PEER", 1, "peer linux: peer node is up", false},
			{"peer remove identity nosuch", 1, "peer nosuch: no such node", false},
			{"socket foo", 2, `"foo"`, false},
			{"nametable foo", 2, `"foo"`, false},
			{"media get priority", 2, "missing media", false},
			{"media get priority media foo", 1, "no medium foo", false},
			{"media get mtu media eth", 2, "udp only", false},
			{"media set mtu 2000 media eth", 2, "udp only", false},
			{"media set priority 32 media udp", 1, "0 to 31", false},
			{"bearer foo", 2, `"foo"`, false},
			{"bearer enable", 2, "missing media", false},
			{"bearer enable media", 2, "media needs a value", false},
			{"bearer enable media foo", 2, `"foo"`, false},
			{"bearer enable media udp", 2, "missing name", false},
			{"bearer enable media udp name u9", 2, "localip IP or device DEVICE", false},
			{"bearer enable media udp name u9 localip x", 2, `localip "x"`, false},
			{"bearer enable media eth", 2, "missing device", false},
			{"bearer get priority media udp name nosuch", 1, "no bearer udp:nosuch", false},
			{"bearer set priority 5 media udp name nosuch", 1, "no bearer udp:nosuch", false},
			{"bearer add media udp name u0", 2, "missing remoteip", false},
			{"bearer add media udp name u0 remoteip 10.99.0.77", 1, "multicast", false},
			{"bearer disable", 2, "missing media", false},
			{"link set tolerance 1500x link LINK", 2, "want a number", true}, // Linux's tool reads 1500
		}...)
	}
	t.Run("mistakes", func(t *testing.T) {
		var commands []string
		for _, m := range list {
			commands = append(commands, m.line)
		}
		for i, theirs := range p.theirsAll(commands...) {
			m := list[i]
			ours := p.ours(true, m.line)
			if (theirs.Code == 0) != m.lenient {
				t.Errorf("%q: Linux's tool exits %d: %s", m.line, theirs.Code, theirs.Stderr)
			}
			if ours.Code != m.code || ours.Stdout != "" || !strings.Contains(ours.Stderr, m.says) || strings.Contains(ours.Stderr, "tipc/") {
				t.Errorf("%q: ours exits %d, %q, %q: want %d and %q", m.line, ours.Code, ours.Stdout, ours.Stderr, m.code, m.says)
			}
		}
	})
}

// goingAndComing disables the bearer on both nodes, looks at what is left, removes the peer, and enables another bearer.
func (p *toolPair) goingAndComing(t *testing.T, medium string) {
	t.Run("going", func(t *testing.T) {
		both := func(line string, show ...string) {
			t.Helper()
			if theirs, ours := p.theirs(line), p.ours(true, line); theirs.Code != 0 || ours != (lab.Result{}) {
				t.Errorf("%s: Linux %+v, ours %+v", line, theirs, ours)
			}
			for i, theirs := range p.theirsAll(show...) {
				line := show[i]
				ours := p.ours(true, line)
				c := comparison{line: line, counters: true}
				if diff := cmp.Diff(c.common(p.sides[0], theirs.Stdout), c.common(p.sides[1], ours.Stdout)); diff != "" || theirs.Code != 0 || ours.Code != 0 {
					t.Errorf("%s: -Linux +ours\n%s", line, diff)
				}
			}
		}
		both("bearer disable BEARER", "bearer list", "link list", "-j link list", "link stat show", "link monitor summary",
			"link monitor list", "-j link monitor list", "-j -p link monitor summary", "node list")
		both("peer remove identity PEER", "node list", "nametable show")
		if medium == "udp" {
			both("bearer enable media udp name u8 localip SELFIP remoteip 10.99.0.77", "bearer list", "bearer get priority media udp name u8",
				"bearer get media udp name u8 remoteip", "bearer get media udp name u8 remoteport", "bearer get mtu media udp name u8", "bearer get tolerance media udp name u8")
			both("bearer add media udp name u8 remoteip 10.99.0.78", "bearer get media udp name u8 remoteip")
		} else {
			both("bearer enable priority 7 media eth device eth0", "bearer list", "bearer get priority BEARER", "bearer get window BEARER")
		}
	})
}
