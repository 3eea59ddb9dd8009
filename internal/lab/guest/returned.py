"""Sends connectionless messages that shall come back, and reads what comes back with its control data.

Each line of standard input, or --to once, is a destination: TYPE:INSTANCE, TYPE:LOWER:UPPER or @NODE:REF.
Events: ready {socket}; sent {to, bytes, sha256}; returned {error, length, data, octets, sha256, name, peer};
message {bytes, peer} for a plain one; nothing {} when --wait seconds pass; error {op, errno}."""

import argparse

from tipckit import *

a = argparse.ArgumentParser()
a.add_argument("--type", choices=["rdm", "dgram"], default="rdm")
a.add_argument("--to", action="append", default=[])
a.add_argument("--size", type=int, default=100)
a.add_argument("--seed", default="seed")
a.add_argument("--droppable", type=int, default=0, help="TIPC_DEST_DROPPABLE; 0 asks for the return")
a.add_argument("--wait", type=float, default=5)
o = a.parse_args()

s = new_socket(o)
s.settimeout(o.wait)
emit("ready", socket=text_of(s.getsockname()))
i = 0
for to in o.to or (line.strip() for line in sys.stdin):
    m = payload(o.seed, i, o.size)
    i += 1
    try:
        s.sendto(m, address(to))
    except OSError as e:
        failed("send", e)
        continue
    emit("sent", to=to, bytes=len(m), sha256=hashlib.sha256(m).hexdigest())
    try:
        b, ancillary, flags, peer = s.recvmsg(MAX_MESSAGE, 4096)
    except TimeoutError:
        emit("nothing")
        continue
    except OSError as e:
        failed("receive", e)
        continue
    v = returned(ancillary)
    if v:
        emit("returned", peer=text_of(peer), **v)
    else:
        emit("message", bytes=len(b), peer=text_of(peer))
