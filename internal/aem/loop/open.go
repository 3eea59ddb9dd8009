package loop

import (
	"errors"
	"fmt"
)

// Backends are the names that Open takes, the preferred first.
var Backends = []string{"io_uring", "epoll", "stdnet"}

// Probe says why a back end cannot be had here; nil if it can. It opens nothing that stays.
func Probe(name string) error { return probe(name) }

// Open opens a loop on the calling goroutine's thread. An empty name is the first of Backends that this system has;
// fallback then says why those before it were passed over, nil if none was. With a name there is no fallback.
func Open(name string, cfg Config) (l Loop, fallback error, err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, nil, err
	}
	if name != "" {
		l, err = open(name, cfg)
		return l, nil, err
	}
	var reasons []error
	for _, name := range Backends {
		if l, err = open(name, cfg); err == nil {
			return l, errors.Join(reasons...), nil
		}
		reasons = append(reasons, fmt.Errorf("%s: %w", name, err))
	}
	return nil, nil, errors.Join(reasons...)
}

func unknown(name string) error {
	return fmt.Errorf("loop: back end is %q, want one of %v", name, Backends)
}
