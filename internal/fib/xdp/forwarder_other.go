//go:build !linux || !amd64

package xdp

import (
	"context"

	"midplane/internal/sys"
)

var errUnsupported = &sys.UnsupportedError{
	Feature: "forwarding by XDP on other than linux/amd64 (the program reads the image with plain loads, which only amd64 keeps in order)",
}

// Forwarder is there on linux/amd64 only.
type Forwarder struct{}

// Open returns an error of type *sys.UnsupportedError.
func Open(Config) (*Forwarder, error) { return nil, errUnsupported }

// Probe returns an error of type *sys.UnsupportedError.
func Probe() error { return errUnsupported }

// Remove does nothing: there is never anything to remove.
func Remove(string) error { return nil }

// Memory returns nil.
func (*Forwarder) Memory() []uint64 { return nil }

// Close does nothing.
func (*Forwarder) Close() error { return nil }

// SetPorts returns an error of type *sys.UnsupportedError.
func (*Forwarder) SetPorts([]Port) error { return errUnsupported }

// Ports returns none.
func (*Forwarder) Ports() []Port { return nil }

// SetDevice returns an error of type *sys.UnsupportedError.
func (*Forwarder) SetDevice(Device) error { return errUnsupported }

// SetNeighbour returns an error of type *sys.UnsupportedError.
func (*Forwarder) SetNeighbour(Neighbour) error { return errUnsupported }

// DeleteNeighbour returns an error of type *sys.UnsupportedError.
func (*Forwarder) DeleteNeighbour(NeighbourKey) error { return errUnsupported }

// Neighbours returns an error of type *sys.UnsupportedError.
func (*Forwarder) Neighbours() ([]Neighbour, error) { return nil, errUnsupported }

// Sync returns an error of type *sys.UnsupportedError.
func (*Forwarder) Sync() error { return errUnsupported }

// Follow returns an error of type *sys.UnsupportedError.
func (*Forwarder) Follow(context.Context) error { return errUnsupported }

// Stats returns an error of type *sys.UnsupportedError.
func (*Forwarder) Stats(uint32) (Stats, error) { return Stats{}, errUnsupported }
