// Package aem runs events by priority and deadline, with bounded response time under overload.
package aem
