// Package probe reads from the running kernel what package gaps decides by.
package probe
