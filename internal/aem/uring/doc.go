// Package uring is io_uring(7) by system calls: rings, provided buffers, entries. It is Linux's, and knows nothing of
// sockets or events; midplane/internal/aem/loop does.
package uring
