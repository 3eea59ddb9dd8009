// Package digsig is runtime authenticity of binaries: what is unsigned, altered or revoked is told from what is good.
package digsig
