// Package ctl decides how many lowered workers may run, from how long goroutines wait for the runtime's scheduler and
// urgent tasks for a worker. It is a core: the driver measures, and does what Step says.
//
// The rule is additive increase, multiplicative decrease, as for windows of congestion control (Chiu and Jain, 1989) and in
// CockroachDB's control of elastic work by scheduling latency: lowered workers give way while others wait too long, and
// come back one by one.
package ctl

import "time"

// Config is what a controller keeps to.
type Config struct {
	Workers  int           // most workers, at least 1
	Goal     time.Duration // the 99th percentile of waiting that is accepted
	Patience int           // samples in a row above the goal until it acts, at least 1
}

// Sample is what was measured since the one before.
type Sample struct {
	Scheduling time.Duration // 99th percentile of how long goroutines waited for the runtime's scheduler
	Urgent     time.Duration // longest that a task of an urgent class waits now
	Stalled    int           // lowered workers whose handler is over its budget: they are no help
}

// Controller is the state. Make one with New.
type Controller struct {
	Config
	allowed int
	above   int
	Cuts    uint64 // how often it lowered the number
}

// New makes a controller that allows all workers.
func New(cfg Config) *Controller {
	if cfg.Workers < 1 || cfg.Patience < 1 || cfg.Goal <= 0 {
		panic("ctl: configuration out of range")
	}
	return &Controller{Config: cfg, allowed: cfg.Workers}
}

// Allowed returns how many workers may make progress.
func (c *Controller) Allowed() int { return c.allowed }

// Resize sets the number of workers, at least 1. A controller that had lowered none lowers none.
func (c *Controller) Resize(workers int) {
	if c.allowed == c.Workers {
		c.allowed = workers
	}
	c.Workers = workers
	c.allowed = min(c.allowed, workers)
}

// Step takes a sample and returns how many workers may run now: those that are allowed, and one for each that is stalled, up
// to as many again. It is between 1 and twice Workers.
func (c *Controller) Step(s Sample) int {
	if max(s.Scheduling, s.Urgent) > c.Goal {
		if c.above++; c.above >= c.Patience && c.allowed > 1 {
			c.allowed -= max(1, c.allowed/4)
			c.above = 0
			c.Cuts++
		}
	} else {
		c.above = 0
		c.allowed = min(c.allowed+1, c.Workers)
	}
	return c.allowed + min(max(s.Stalled, 0), c.Workers)
}
