// Package elfsig finds, places and removes the slot for an embedded signature in an ELF file: a note section that is not
// loaded, at the very end of the file. The layout is in docs/digsig.md.
//
// Files are hostile: every offset is checked against the file's size with arithmetic that cannot overflow, counts have
// caps, and memory is taken in windows of fixed size, never by a size that the file claims (the exceptions, which the
// file's real size bounds, are the tables that Embed writes anew).
package elfsig
