//go:build !linux

package loop

import "midplane/internal/sys"

func open(name string, cfg Config) (Loop, error) {
	if err := probe(name); err != nil {
		return nil, err
	}
	return newStd(cfg), nil
}

func probe(name string) error {
	switch name {
	case "stdnet":
		return nil
	case "epoll", "io_uring":
		return &sys.UnsupportedError{Feature: name + " outside of Linux"}
	}
	return unknown(name)
}
