package daemon

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"midplane/tipc"
)

func TestParseConfig(t *testing.T) {
	text := `
identity = "node1"
netid = 5000
control = "/run/x"
loglevel = "debug"

[[bearer]]
media = "udp"
name = "u1"
localip = "10.0.0.1"
remoteip = ["10.0.0.2", "10.0.0.3:9"]
priority = 5

[[bearer]]
media = "eth"
device = "eth0"
`
	want := Config{Identity: tipc.MustParseNodeID("node1"), NetID: 5000, Control: "/run/x", LogLevel: -4, Bearers: []tipc.Bearer{
		tipc.UDP{Name: "u1", LocalIP: netip.MustParseAddr("10.0.0.1"), BearerSettings: tipc.BearerSettings{Priority: 5},
			Remotes: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:6118"), netip.MustParseAddrPort("10.0.0.3:9")}},
		tipc.Ethernet{Device: "eth0"},
	}}
	path := filepath.Join(t.TempDir(), "m.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadConfig(path)
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	if c, err := ParseConfig(nil); err != nil || !cmp.Equal(c, Config{}) {
		t.Errorf("empty file: %+v, %v", c, err)
	}
}

// Each mistake is answered with what and where it is, and with what would be right.
func TestConfigErrors(t *testing.T) {
	bearer := "[[bearer]]\nmedia = \"udp\"\nname = \"u1\"\nlocalip = \"10.0.0.1\"\n"
	for text, want := range map[string][]string{
		`identity = "x!y"`:            {"node identity", `"x!y"`, "want"},
		`netid = 0`:                   {"netid", `"0"`, "1 to"},
		`netid = "x"`:                 {"line 1", "netid", `"x" is not right`, "a whole number"},
		`identity = 5`:                {"line 1", "identity", "5 is not right", "text in quotes"},
		bearer + `remoteip = "x"`:     {"line 5", "bearer.remoteip", `"x" is not right`, "a list of texts"},
		bearer + `priority = []`:      {"line 5", "bearer.priority", "[] is not right", "a whole number"},
		`address = "1.2"`:             {"address", `"1.2"`, "Z.C.N"},
		`loglevel = "loud"`:           {"loglevel", `"loud"`, "debug"},
		"\nidentty = \"x\"":           {"line 2", `"identty"`, "identity"},
		"[[bearer]]\nmedia = \"tcp\"": {"bearer 1", "media", `"tcp"`, "udp or eth"},
		bearer + "prioriti = 1":       {"line 5", `prioriti`},
		bearer + "priority = 99":      {"bearer 1", "priority", "0 to 31"},
		bearer + bearer:               {"bearer", "udp:u1", "only once"},
		strings.Repeat("[[bearer]]\nmedia = \"eth\"\ndevice = \"e\"\n", 4): {"4 of them", "at most 3"},
		"x =": {"line 1"},
	} {
		_, err := ParseConfig([]byte(text))
		if err == nil {
			t.Errorf("%q accepted", text)
			continue
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: %q does not say %q", text, err, w)
			}
		}
	}
}
