package tipc

import (
	"errors"
	"os"

	"midplane/internal/tipc/bearer"
)

// captured is a bearer with the file that its packets are copied to.
type captured struct {
	*bearer.Traced
	file *os.File
}

func capture(b bearer.Bearer, path string) (*captured, error) {
	// What nodes say to each other is nobody else's business.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	c, err := bearer.NewCapture(f, b.Media())
	if err != nil {
		f.Close()
		return nil, err
	}
	return &captured{bearer.Trace(b, c), f}, nil
}

// Close implements bearer.Bearer.
func (c *captured) Close() error { return errors.Join(c.Traced.Close(), c.file.Close()) }
