package cli

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"midplane/internal/daemon"
	"midplane/tipc"
)

func newNode(e *env) *cobra.Command {
	var (
		file, identity, address, control, level string
		netid                                   uint32
		bearers                                 []string
		check, fibs                             bool
		fibState, fibBackend, fibForward        string
	)
	c := &cobra.Command{
		Use:   "node",
		Short: "Run a node, of TIPC and of FIBs, in the foreground",
		Long: `Runs a node until it gets SIGINT or SIGTERM; then it withdraws its services, tells its peers and ends.

Other programs use the node through its control socket: midplane tipc, midplane fib, and everything that calls tipc.Open.
Flags override the configuration file; bearers of both are enabled.`,
		Example: `  midplane node --identity node1 --bearer udp,name=u1,localip=10.0.0.1
  midplane node --bearer eth,device=eth0
  midplane node --fib
  midplane node --config /etc/midplane/node.toml --check`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var cfg daemon.Config
			var err error
			if file != "" {
				if cfg, err = daemon.ReadConfig(file); err != nil {
					return usageError{err}
				}
			}
			set := c.Flags().Changed
			if set("identity") {
				if cfg.Identity, err = tipc.ParseNodeID(identity); err != nil {
					return usagef("--identity: %w", err)
				}
			}
			if set("address") {
				if cfg.Address, err = tipc.ParseNodeAddr(address); err != nil || cfg.Address == 0 {
					return usagef("--address %q: want a legacy Z.C.N address, such as 1.1.7", address)
				}
			}
			if set("netid") {
				if cfg.NetID = netid; netid == 0 {
					return usagef("--netid 0: want 1 to 4294967295")
				}
			}
			if set("control") || cfg.Control == "" {
				cfg.Control = control
			}
			if set("log-level") {
				if err := cfg.LogLevel.UnmarshalText([]byte(level)); err != nil {
					return usagef("--log-level %q: want debug, info, warn or error", level)
				}
			}
			for _, s := range bearers {
				b, err := tipc.ParseBearer(s)
				if err != nil {
					return usagef("--bearer %s: %w", s, err)
				}
				cfg.Bearers = append(cfg.Bearers, b)
			}
			if fibs || set("fib-state") || set("fib-backend") || set("fib-forward") {
				cfg.FIB.Enabled = true
			}
			if set("fib-state") {
				cfg.FIB.State = fibState
			}
			if set("fib-backend") {
				cfg.FIB.Backend = fibBackend
			}
			if set("fib-forward") {
				cfg.FIB.Forward = fibForward
			}
			if err := cfg.Validate(); err != nil {
				return usageError{err}
			}
			if check {
				_, err := fmt.Fprintln(e.out, "the configuration is right")
				return err
			}
			log := slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: cfg.LogLevel}))
			d, err := daemon.Start(cfg, log)
			if err != nil {
				return err
			}
			notify := func(state string) {
				if err := daemon.Notify(state); err != nil {
					log.Warn(err.Error()) // the node is of use without
				}
			}
			notify("READY=1")
			<-c.Context().Done()
			log.Info("stopping")
			notify("STOPPING=1")
			return d.Close()
		},
	}
	f := c.Flags()
	f.StringVar(&file, "config", "", "configuration file, TOML")
	f.StringVar(&identity, "identity", "", "128-bit identity: up to 16 characters, or hexadecimal digits; made at random if not given")
	f.StringVar(&address, "address", "", "fixed legacy address Z.C.N; usually it is made from the identity")
	f.Uint32Var(&netid, "netid", tipc.DefaultNetID, "network id of the cluster")
	f.StringArrayVar(&bearers, "bearer", nil, "bearer to enable, e.g. udp,name=u1,localip=10.0.0.1[,remoteip=10.0.0.2] or eth,device=eth0; repeatable")
	f.StringVar(&control, "control", tipc.DefaultControl(), "path of the control socket")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&fibs, "fib", false, "have FIBs, as with a table [fib] in the configuration file: see midplane fib")
	f.StringVar(&fibState, "fib-state", "", "directory that keeps FIBs; /var/lib/midplane/fib for root, else ~/.local/state/midplane/fib")
	f.StringVar(&fibBackend, "fib-backend", "", "how the kernel keeps FIBs apart that do not say it: auto (root), vrf, rules, netns or none")
	f.StringVar(&fibForward, "fib-forward", "none", "who forwards packets between ports of FIBs: xdp, or none but the kernel")
	f.BoolVar(&check, "check", false, "check the configuration and end")
	return c
}
