//go:build !linux

package main

import "time"

var began = time.Now()

// spent is the time that went by: elsewhere that of a thread is not asked for.
func spent() time.Duration { return time.Since(began) }
