package kernel

import (
	"context"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// driftGroups are what FIBs are made of: devices, addresses and rules.
const driftGroups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV4_RULE-1) |
	1<<(unix.RTNLGRP_IPV6_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_RULE-1)

// WatchDevices implements API.
func (k *Kernel) WatchDevices(ctx context.Context, f func()) error {
	config := netlink.Config{Groups: driftGroups}
	if k.config.Netns != "" {
		ns, err := openSpace(k.config.Netns)
		if err != nil {
			return err
		}
		defer ns.Close()
		config.NetNS = int(ns.Fd())
	}
	c, err := netlink.Dial(unix.NETLINK_ROUTE, &config)
	if err != nil {
		return err
	}
	changed, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		for {
			_, err := c.Receive()
			if err = cause(err); err != nil && !isAny(err, unix.ENOBUFS) { // what was lost was a change too
				ended <- err
				return
			}
			select {
			case changed <- struct{}{}:
			default: // one is waiting
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			_ = c.Close()
			<-ended
			return ctx.Err()
		case err := <-ended:
			_ = c.Close()
			return err
		case <-changed:
			f()
		}
	}
}
