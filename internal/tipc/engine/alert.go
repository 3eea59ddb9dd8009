package engine

import (
	"fmt"
	"time"

	"midplane/internal/mono"
	"midplane/internal/tipc/stack"
)

// Bounds of what the log is told of duplicate addresses, which anybody on the network can feign.
const (
	alertAgain = time.Hour // after which the same one is told again
	maxAlerts  = 64        // different ones in that time
)

// alerts has when each duplicate address was told last.
type alerts map[stack.Duplicate]mono.Time

// due notes d, and reports whether it is to be told.
func (a *alerts) due(now mono.Time, d stack.Duplicate) bool {
	if *a == nil {
		*a = alerts{}
	}
	if at, ok := (*a)[d]; ok && now < at.Add(alertAgain) {
		return false
	}
	if len(*a) >= maxAlerts {
		for k, at := range *a {
			if now >= at.Add(alertAgain) {
				delete(*a, k)
			}
		}
		if len(*a) >= maxAlerts {
			return false
		}
	}
	(*a)[d] = now
	return true
}

// alert tells the operator that two nodes use one address (net/tipc/discover.c disc_dupl_alert). Called with mu held,
// under which the log must not be waited for.
func (e *Engine) alert(now mono.Time, d stack.Duplicate) {
	if !e.alerts.due(now, d) {
		return
	}
	b, _, _ := e.stack.Bearer(d.Bearer)
	whose := "a peer"
	if d.Addr == e.stack.Addr() {
		whose = "this node"
	}
	e.wg.Go(func() {
		e.log.Warn("another node uses the address of "+whose, "address", fmt.Sprintf("%x", d.Addr), "at", d.Media.String(), "bearer", b.Name)
	})
}
