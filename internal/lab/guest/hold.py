"""Binds a socket, prints its address and closes it on request: a port that was there and is gone.

Events: ready {socket}; closed {} after the first line of standard input; ends when standard input closes."""

import argparse

from tipckit import *

a = argparse.ArgumentParser()
a.add_argument("--type", choices=KINDS, default="rdm")
a.add_argument("--service", help="TYPE:INSTANCE or TYPE:LOWER:UPPER")
a.add_argument("--rcvbuf", type=int)
o = a.parse_args()

s = new_socket(o)
if o.service:
    s.bind(range_of(o.service))
emit("ready", socket=text_of(s.getsockname()))
if sys.stdin.readline():
    s.close()
    emit("closed")
until_stdin_closes()
