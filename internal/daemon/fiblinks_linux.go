package daemon

import (
	"context"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	fibs "midplane/internal/fib/service"
)

// listDevices lists the devices of a network namespace, by its file; "" is that of this process.
func listDevices(space string) ([]device, error) {
	h := &netlink.Handle{} // of this process's namespace
	if space != "" {
		ns, err := netns.GetFromPath(space)
		if err != nil {
			return nil, err
		}
		defer ns.Close()
		if h, err = netlink.NewHandleAt(ns); err != nil {
			return nil, err
		}
		defer h.Close()
	}
	links, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, err
	}
	l := make([]device, len(links))
	at := make(map[int]int, len(links))
	for i, link := range links {
		l[i] = device{name: link.Attrs().Name, index: uint32(link.Attrs().Index)}
		if v, ok := link.(*netlink.Vlan); ok {
			l[i].link, l[i].tag = uint32(v.ParentIndex), uint16(v.VlanId)
			if v.VlanProtocol == netlink.VLAN_PROTOCOL_8021AD {
				l[i].tag |= fibs.TagAD
			}
		}
		at[link.Attrs().Index] = i
	}
	for _, a := range addrs {
		i, ok := at[a.LinkIndex]
		ip, valid := netip.AddrFromSlice(a.IP)
		if bits, _ := a.Mask.Size(); ok && valid {
			l[i].addrs = append(l[i].addrs, netip.PrefixFrom(ip.Unmap(), bits))
		}
	}
	return l, nil
}

// watchDevices calls changed after devices or addresses of the host's namespace came, went, or changed, until ctx ends.
// Many changes at once may be one call.
func watchDevices(ctx context.Context, changed func()) error {
	lost := func(error) { changed() }
	links, addrs := make(chan netlink.LinkUpdate, 256), make(chan netlink.AddrUpdate, 256)
	if err := netlink.LinkSubscribeWithOptions(links, ctx.Done(), netlink.LinkSubscribeOptions{ErrorCallback: lost}); err != nil {
		return err
	}
	if err := netlink.AddrSubscribeWithOptions(addrs, ctx.Done(), netlink.AddrSubscribeOptions{ErrorCallback: lost}); err != nil {
		return err
	}
	go func() {
		for links != nil || addrs != nil {
			select {
			case _, ok := <-links:
				if !ok {
					links = nil
				}
			case _, ok := <-addrs:
				if !ok {
					addrs = nil
				}
			}
			for more := true; more && links != nil && addrs != nil; {
				select {
				case _, more = <-links:
				case _, more = <-addrs:
				default:
					more = false
				}
			}
			if ctx.Err() == nil {
				changed()
			}
		}
	}()
	return nil
}
