package daemon

import (
	"context"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// listDevices lists the devices of a network namespace, by its file; "" is that of this process.
func listDevices(space string) (map[string]uint32, error) {
	var links []netlink.Link
	if space == "" {
		var err error
		if links, err = netlink.LinkList(); err != nil {
			return nil, err
		}
	} else {
		ns, err := netns.GetFromPath(space)
		if err != nil {
			return nil, err
		}
		defer ns.Close()
		h, err := netlink.NewHandleAt(ns)
		if err != nil {
			return nil, err
		}
		defer h.Close()
		if links, err = h.LinkList(); err != nil {
			return nil, err
		}
	}
	m := make(map[string]uint32, len(links))
	for _, l := range links {
		m[l.Attrs().Name] = uint32(l.Attrs().Index)
	}
	return m, nil
}

// watchDevices calls changed after devices of the host's namespace came, went, or changed, until ctx ends. Many changes at
// once may be one call.
func watchDevices(ctx context.Context, changed func()) error {
	updates := make(chan netlink.LinkUpdate, 256)
	err := netlink.LinkSubscribeWithOptions(updates, ctx.Done(), netlink.LinkSubscribeOptions{
		ErrorCallback: func(error) { changed() }, // events were lost, perhaps
	})
	if err != nil {
		return err
	}
	go func() {
		for range updates {
			for more := true; more; {
				select {
				case _, more = <-updates:
				default:
					more = false
				}
			}
			changed()
		}
	}()
	return nil
}
