package daemon

import (
	"fmt"
	"net"
	"os"
)

// Notify tells the service manager that started this process a state such as "READY=1", by the protocol of
// sd_notify(3). Without a service manager it does nothing.
func Notify(state string) error {
	// The name of an abstract socket begins with "@" here and in package net.
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("telling the service manager %s: %w", state, err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(state)); err != nil {
		return fmt.Errorf("telling the service manager %s: %w", state, err)
	}
	return nil
}
