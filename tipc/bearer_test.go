package tipc

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestParseBearer(t *testing.T) {
	ip := netip.MustParseAddr
	tests := map[string]Bearer{
		"udp,name=u1,localip=10.0.0.1":                   UDP{Name: "u1", LocalIP: ip("10.0.0.1")},
		"udp,name=u1,device=lo,localport=7,mtu=1400":     UDP{Name: "u1", Device: "lo", LocalPort: 7, MTU: 1400},
		"udp,name=u1,localip=::1,group=ff02::5":          UDP{Name: "u1", LocalIP: ip("::1"), Group: ip("ff02::5")},
		"udp,name=u1,localip=1.2.3.4,remoteip=224.1.2.3": UDP{Name: "u1", LocalIP: ip("1.2.3.4"), Group: ip("224.1.2.3"), RemotePort: 6118},
		"udp,name=u1,localip=10.0.0.1,remoteip=10.0.0.2,remoteip=10.0.0.3:9,remoteport=8": UDP{Name: "u1", LocalIP: ip("10.0.0.1"), RemotePort: 8,
			Remotes: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:8"), netip.MustParseAddrPort("10.0.0.3:9")}},
		"eth,device=eth0": Ethernet{Device: "eth0"},
		"eth,device=eth0,priority=0,tolerance=2000,window=60,domain=1.1.0": Ethernet{Device: "eth0",
			BearerSettings: BearerSettings{Priority: LowestPriority, Tolerance: 2 * time.Second, Window: 60, Domain: 0x01001000}},
	}
	for s, want := range tests {
		got, err := ParseBearer(s)
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", s, err, diff)
		}
		if err == nil && got.BearerName() != want.BearerName() {
			t.Errorf("%s: name %s", s, got.BearerName())
		}
	}
	for s, field := range map[string]string{
		"":                              "media",
		"tcp":                           "media",
		"udp":                           "name",
		"udp,name=a:b,localip=10.0.0.1": "name",
		"udp,name=abcdefghijklmnop,localip=10.0.0.1": "name",
		"udp,name=u1":                                                       "localip",
		"udp,name=u1,localip=x":                                             "localip",
		"udp,name=u1,localip=0.0.0.0":                                       "localip",
		"udp,name=u1,localip=224.0.0.1":                                     "localip",
		"udp,name=u1,localip=10.0.0.1,localport=x":                          "localport",
		"udp,name=u1,localip=10.0.0.1,localport=65536":                      "localport",
		"udp,name=u1,localip=10.0.0.1,remoteport=70000,remoteip=10.0.0.2":   "remoteport",
		"udp,name=u1,localip=10.0.0.1,remoteip=x":                           "remoteip",
		"udp,name=u1,localip=10.0.0.1,remoteip=::1":                         "remoteip",
		"udp,name=u1,localip=10.0.0.1,remoteip=10.0.0.2,remoteip=224.0.0.9": "remoteip",
		"udp,name=u1,localip=10.0.0.1,group=10.0.0.2":                       "group",
		"udp,name=u1,localip=10.0.0.1,group=224.0.0.5,remoteip=10.0.0.2":    "group",
		"udp,name=u1,localip=10.0.0.1,mtu=100":                              "mtu",
		"udp,name=u1,localip=10.0.0.1,priority=32":                          "priority",
		"udp,name=u1,localip=10.0.0.1,priority=-1":                          "priority",
		"udp,name=u1,localip=10.0.0.1,tolerance=49":                         "tolerance",
		"udp,name=u1,localip=10.0.0.1,window=49":                            "window",
		"udp,name=u1,localip=10.0.0.1,domain=x":                             "domain",
		"udp,name":                                                          "bearer",
		"udp,name=":                                                         "bearer",
		"udp,nam=u1":                                                        "bearer",
		"eth":                                                               "device",
		"eth,device=a/b":                                                    "device",
		"eth,device=eth0,localip=1":                                         "localip",
		"eth,device=eth0,mtu=1500":                                          "mtu",
	} {
		_, err := ParseBearer(s)
		var fe *FieldError
		if !errors.As(err, &fe) || fe.Field != field || fe.Want == "" || !strings.Contains(err.Error(), fe.Want) {
			t.Errorf("%s: %v, want an error about %s", s, err, field)
		}
	}
}
