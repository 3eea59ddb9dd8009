package bgp

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"
)

// peerEnv makes this test binary a BGP peer: GoBGP by itself, in a process of its own, because servers in one process
// share variables.
const peerEnv = "MIDPLANE_TEST_BGP_PEER"

func TestMain(m *testing.M) {
	if c := os.Getenv(peerEnv); c != "" {
		if err := servePeer(c, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "peer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// peerConf is what a peer is, and order what it is to do. It answers each order with a line.
type peerConf struct {
	ASN     uint32
	Local   string
	Port    int
	Restart uint32
}

type order struct {
	Do       string // "announce", "withdraw", "stop"
	Hop      string
	Prefixes []netip.Prefix
}

func servePeer(conf string, in io.Reader, out io.Writer) error {
	var c peerConf
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		return err
	}
	srv := server.NewBgpServer(server.LoggerOption(slog.New(slog.DiscardHandler), &slog.LevelVar{}))
	go srv.Serve()
	ctx := context.Background()
	if err := srv.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{Asn: c.ASN, RouterId: c.Local, ListenPort: -1}}); err != nil {
		return err
	}
	n := &api.Peer{
		Conf:            &api.PeerConf{NeighborAddress: "127.0.0.1", PeerAsn: 65000},
		Transport:       &api.Transport{LocalAddress: c.Local, RemotePort: uint32(c.Port)},
		Timers:          &api.Timers{Config: &api.TimersConfig{ConnectRetry: 1, HoldTime: 90, KeepaliveInterval: 30, IdleHoldTimeAfterReset: 1}},
		GracefulRestart: &api.GracefulRestart{Enabled: c.Restart > 0, RestartTime: c.Restart},
	}
	for _, f := range []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC} {
		n.AfiSafis = append(n.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: &api.Family{Afi: api.Family_Afi(f.Afi()), Safi: api.Family_Safi(f.Safi())}, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: c.Restart > 0}},
		})
	}
	if err := srv.AddPeer(ctx, &api.AddPeerRequest{Peer: n}); err != nil {
		return err
	}
	lines := json.NewDecoder(in)
	for {
		var o order
		if err := lines.Decode(&o); err == io.EOF {
			return nil // the test is over
		} else if err != nil {
			return err
		}
		var l []*apiutil.Path
		for _, p := range o.Prefixes {
			x, err := path(p, o.Hop)
			if err != nil {
				return err
			}
			l = append(l, x)
		}
		var err error
		switch o.Do {
		case "announce":
			_, err = srv.AddPath(apiutil.AddPathRequest{Paths: l})
		case "withdraw":
			err = srv.DeletePath(apiutil.DeletePathRequest{Paths: l})
		case "stop":
			err = srv.StopBgp(ctx, &api.StopBgpRequest{})
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o.Do, err)
		}
		fmt.Fprintln(out, "done")
	}
}

func path(p netip.Prefix, hop string) (*apiutil.Path, error) {
	n, err := bgp.NewIPAddrPrefix(p)
	if err != nil {
		return nil, err
	}
	h, err := netip.ParseAddr(hop)
	if err != nil {
		return nil, err
	}
	origin := bgp.NewPathAttributeOrigin(0)
	if p.Addr().Is4() {
		a, err := bgp.NewPathAttributeNextHop(h)
		return &apiutil.Path{Family: bgp.RF_IPv4_UC, Nlri: n, Attrs: []bgp.PathAttributeInterface{origin, a}}, err
	}
	a, err := bgp.NewPathAttributeMpReachNLRI(bgp.RF_IPv6_UC, []bgp.PathNLRI{{NLRI: n}}, h)
	return &apiutil.Path{Family: bgp.RF_IPv6_UC, Nlri: n, Attrs: []bgp.PathAttributeInterface{origin, a}}, err
}

// peer is such a process. It ends with the test.
type peer struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Scanner
	dead bool
}

func newPeer(t *testing.T, asn uint32, local string, port int, restart uint32) *peer {
	t.Helper()
	conf, err := json.Marshal(peerConf{asn, local, port, restart})
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), peerEnv+"="+string(conf))
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

func (p *peer) kill() {
	if !p.dead {
		p.dead = true
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}

func (p *peer) say(do string) { p.t.Helper(); p.order(order{Do: do}) }

func (p *peer) order(o order) {
	p.t.Helper()
	if err := json.NewEncoder(p.in).Encode(o); err != nil {
		p.t.Fatal(err)
	}
	if !p.out.Scan() {
		p.t.Fatalf("the peer ended: %v", p.out.Err())
	}
}

func (p *peer) announce(hop string, prefixes ...netip.Prefix) {
	p.t.Helper()
	p.order(order{"announce", hop, prefixes})
}

func (p *peer) withdraw(hop string, prefixes ...netip.Prefix) {
	p.t.Helper()
	p.order(order{"withdraw", hop, prefixes})
}
