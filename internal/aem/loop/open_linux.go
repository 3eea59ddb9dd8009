package loop

import "midplane/internal/aem/uring"

func open(name string, cfg Config) (Loop, error) {
	switch name {
	case "stdnet":
		return newStd(cfg), nil
	case "epoll":
		return newEpoll(cfg)
	case "io_uring":
		return newUring(cfg)
	}
	return nil, unknown(name)
}

func probe(name string) error {
	switch name {
	case "stdnet", "epoll":
		return nil
	case "io_uring":
		return uring.Probe()
	}
	return unknown(name)
}
