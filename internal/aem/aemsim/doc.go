// Package aemsim runs the cores of the executor (sched, wheel, ctl) on one thread against a virtual clock: a million events
// with random classes, deadlines and faults, the same ones for the same seed. All of it is tests.
package aemsim
