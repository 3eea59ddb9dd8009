package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"midplane/tipc"
)

func newSubscribe(e *env) *cobra.Command {
	var (
		path    string
		asJSON  bool
		cfg     tipc.SubscribeConfig
		count   int
		timeout time.Duration
	)
	c := &cobra.Command{
		Use:   "subscribe TYPE[:LOWER:UPPER]",
		Short: "Report bindings of a service as they appear and disappear, one line each",
		Long: `Reports bindings of a service type, or of a range of its instances: first those that exist, then each
change as it happens. Type 0 reports nodes, type 2 the links of the local node; an instance is a node's address.

A line has the event (published, withdrawn, timeout), the range, and the socket as PORT@NODE. With -j each is a
JSON object with the members event, type, lower, upper, port and node.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			r, err := parseSubscription(args[0])
			if err != nil {
				return usageError{err}
			}
			if cfg.Timeout = timeout; timeout < 0 || count < 0 {
				return usagef("--timeout and --count cannot be negative")
			}
			n, err := open(path)
			if err != nil {
				return err
			}
			defer n.Close()
			sub, err := n.Subscribe(r, &cfg)
			if err != nil {
				return err
			}
			defer sub.Close()
			for i := 0; count == 0 || i < count; i++ {
				ev, err := sub.NextContext(c.Context())
				if c.Context().Err() != nil || errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if err := printEvent(e.out, ev, asJSON); err != nil {
					return err
				}
			}
			return nil
		},
	}
	control(c, &path)
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "one JSON object a line")
	c.Flags().DurationVar(&timeout, "timeout", 0, "end after this time, with a timeout event")
	c.Flags().BoolVar(&cfg.FirstAndLast, "first-last", false, "only the first binding of a range and the end of the last")
	c.Flags().IntVar(&count, "count", 0, "end after this many events")
	return c
}

// parseSubscription reads TYPE, TYPE:INSTANCE or TYPE:LOWER:UPPER.
func parseSubscription(s string) (tipc.ServiceRange, error) {
	if strings.Contains(s, ":") {
		return tipc.ParseServiceRange(s)
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return tipc.ServiceRange{}, fmt.Errorf("subscription %q: want TYPE or TYPE:LOWER:UPPER", s)
	}
	return tipc.ServiceRange{Type: uint32(n), Upper: 1<<32 - 1}, nil
}

func printEvent(w io.Writer, ev tipc.Event, asJSON bool) error {
	if !asJSON {
		_, err := fmt.Fprintf(w, "%-9s %v %v\n", ev.Kind, ev.Service, ev.Socket)
		return err
	}
	return json.NewEncoder(w).Encode(struct {
		Event tipc.EventKind `json:"event"`
		Type  uint32         `json:"type"`
		Lower uint32         `json:"lower"`
		Upper uint32         `json:"upper"`
		Port  uint32         `json:"port"`
		Node  tipc.NodeAddr  `json:"node"`
	}{ev.Kind, ev.Service.Type, ev.Service.Lower, ev.Service.Upper, ev.Socket.Port, ev.Socket.Node})
}
