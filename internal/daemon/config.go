// Package daemon is the node as a process of its own: configuration, the control socket, and an orderly end.
package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"midplane/tipc"
)

// Config says what a daemon runs. The zero value is a node without bearers, with a random identity.
type Config struct {
	Identity tipc.NodeID   // zero: made at random
	NetID    uint32        // 0: 4711
	Address  tipc.NodeAddr // legacy <Z.C.N> address; 0: made from the identity
	Control  string        // path of the control socket; empty: tipc.DefaultControl
	Bearers  []tipc.Bearer
	LogLevel slog.Level
	FIB      FIBConfig
}

// file is the configuration file. Its keys are the command's flags and, in a bearer, the tipc tool's key words.
type file struct {
	Identity string              `toml:"identity"`
	NetID    *int64              `toml:"netid"`
	Address  string              `toml:"address"`
	Control  string              `toml:"control"`
	LogLevel string              `toml:"loglevel"`
	Bearer   []tipc.BearerFields `toml:"bearer"`
	FIB      *fibFile            `toml:"fib"`
}

// ReadConfig reads a configuration file. Errors name the file, the line or the field, the value and what is right.
func ReadConfig(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, err
	}
	c, err := ParseConfig(b)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// ParseConfig parses the text of a configuration file. Unknown keys are errors.
func ParseConfig(text []byte) (Config, error) {
	var f file
	dec := toml.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return Config{}, explain(err, text)
	}
	c := Config{Control: f.Control}
	if f.Identity != "" {
		id, err := tipc.ParseNodeID(f.Identity)
		if err != nil {
			return c, err
		}
		c.Identity = id
	}
	if f.NetID != nil {
		if *f.NetID < 1 || *f.NetID > 1<<32-1 {
			return c, &tipc.FieldError{Field: "netid", Value: fmt.Sprint(*f.NetID), Want: "1 to 4294967295"}
		}
		c.NetID = uint32(*f.NetID)
	}
	if f.Address != "" {
		a, err := tipc.ParseNodeAddr(f.Address)
		if err != nil || a == 0 {
			return c, &tipc.FieldError{Field: "address", Value: f.Address, Want: "a legacy Z.C.N address, such as 1.1.7"}
		}
		c.Address = a
	}
	if f.LogLevel != "" {
		if err := c.LogLevel.UnmarshalText([]byte(f.LogLevel)); err != nil {
			return c, &tipc.FieldError{Field: "loglevel", Value: f.LogLevel, Want: "debug, info, warn or error"}
		}
	}
	for i, bf := range f.Bearer {
		b, err := bf.Bearer()
		if err != nil {
			return c, fmt.Errorf("bearer %d: %w", i+1, err)
		}
		c.Bearers = append(c.Bearers, b)
	}
	if f.FIB != nil {
		var err error
		if c.FIB, err = f.FIB.config(); err != nil {
			return c, err
		}
	}
	return c, c.Validate()
}

// MaxBearers is how many bearers a node has at most (net/tipc/core.h MAX_BEARERS).
const MaxBearers = 3

// Validate checks what single fields cannot tell.
func (c Config) Validate() error {
	if len(c.Bearers) > MaxBearers {
		return &tipc.FieldError{Field: "bearer", Value: fmt.Sprint(len(c.Bearers), " of them"), Want: fmt.Sprint("at most ", MaxBearers)}
	}
	if err := c.FIB.validate(); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, b := range c.Bearers {
		if err := b.Validate(); err != nil {
			return fmt.Errorf("bearer %s: %w", b.BearerName(), err)
		}
		if seen[b.BearerName()] {
			return &tipc.FieldError{Field: "bearer", Value: b.BearerName(), Want: "each name only once"}
		}
		seen[b.BearerName()] = true
	}
	return nil
}

// wrongType is what the decoder says about a value of another type; kinds are its types in words.
var (
	wrongType = regexp.MustCompile(`^toml: cannot decode TOML \w+ into .* of type (\S+)$`)
	kinds     = map[string]string{"string": "text in quotes", "int": "a whole number", "int64": "a whole number", "[]string": "a list of texts in quotes, in brackets", "bool": "true or false"}
)

// explain makes a decoder's error say the line and the key, and where it can the value and what would be right.
func explain(err error, text []byte) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		e := strict.Errors[0]
		line, _ := e.Position()
		return fmt.Errorf("line %d: unknown key %q: want identity, netid, address, control, loglevel, a [[bearer]] with the tipc tool's key words, or a [fib]", line, strings.Join(e.Key(), "."))
	}
	var dec *toml.DecodeError
	if errors.As(err, &dec) {
		line, _ := dec.Position()
		if key := strings.Join(dec.Key(), "."); key != "" {
			if m := wrongType.FindStringSubmatch(dec.Error()); m != nil && kinds[m[1]] != "" {
				_, value, _ := strings.Cut(strings.Split(string(text), "\n")[line-1], "=")
				return fmt.Errorf("line %d: %s: %s is not right: want %s", line, key, strings.TrimSpace(value), kinds[m[1]])
			}
			return fmt.Errorf("line %d: %s: %s", line, key, strings.TrimPrefix(dec.Error(), "toml: "))
		}
		return fmt.Errorf("line %d: %s", line, strings.TrimPrefix(dec.Error(), "toml: "))
	}
	return err
}
