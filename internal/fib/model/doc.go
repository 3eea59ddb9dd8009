// Package model holds the Promela model of how a FIB image is published and how its memory is used again; see README.md.
// There is nothing in it for programs.
package model
