//go:build !linux

package bearer

import (
	"net"

	"midplane/internal/sys"
	"midplane/internal/tipc/buf"
)

type ethSys struct{}

func (*ethSys) open(*Eth, EthConfig, *net.Interface) error {
	return &sys.UnsupportedError{Feature: "the Ethernet bearer", MinKernel: "4.4"}
}

func (*ethSys) write(*Eth, *buf.Batch, int) error { return ErrClosed }

func (*ethSys) close() error { return nil }
