package bearer

import (
	"errors"
	"fmt"
	"net"
)

// device finds a network device. The error names it and leaves out what only concerns how it was looked for.
func device(name string) (*net.Interface, error) {
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			err = op.Err
		}
		return nil, fmt.Errorf("device %s: %w", name, err)
	}
	return ifi, nil
}
