"""A subscriber of the topology service: one event a line until standard input closes.

Events: subscribed; published, withdrawn {type, lower, upper, node, port, found_lower, found_upper, usr};
timeout {type, lower, upper}; closed {errno} when the service ends the connection.
Standard input takes lines: "cancel N" withdraws subscription number N, from 0."""

import argparse

from tipckit import *

NAMES = {1: "published", 2: "withdrawn", 3: "timeout"}

a = argparse.ArgumentParser()
a.add_argument("--subscribe", action="append", required=True, help="TYPE[:LOWER:UPPER], may be repeated")
a.add_argument("--filter", choices=["ports", "service"], default="ports")
a.add_argument("--timeout", type=int, default=-1, help="milliseconds; -1: for ever")
a.add_argument("--order", choices=["little", "big"], default="little", help="byte order to speak")
a.add_argument("--node", type=number, help="ask this node's topology service, not our own")
a.add_argument("--usr", default="0011223344556677", help="user handle, 16 hexadecimal digits")
o = a.parse_args()

order = "<" if o.order == "little" else ">"
FILTER = {"ports": 1, "service": 2}
SUBSCR = order + "IIIII8s"
EVENT = order + "IIIII" + "IIIII8s"


def request(text, extra=0):
    n = [number(p) for p in text.split(":")]
    if len(n) == 1:
        n += [0, 0xFFFFFFFF]
    return struct.pack(SUBSCR, n[0], n[1], n[2], o.timeout & 0xFFFFFFFF, FILTER[o.filter] | extra, bytes.fromhex(o.usr))


s = socket.socket(socket.AF_TIPC, socket.SOCK_SEQPACKET)
try:
    if o.node is not None:
        connect_at(s, "1:1", o.node)
    else:
        s.connect(address("1:1"))
    for text in o.subscribe:
        s.send(request(text))
    emit("subscribed")
    while True:
        readable, _, _ = select.select([s, sys.stdin.buffer], [], [])
        if sys.stdin.buffer in readable:
            line = os.read(0, 4096)
            if not line:
                break
            words = line.decode().split()
            if words and words[0] == "cancel":
                s.send(request(o.subscribe[int(words[1])], 4))
                emit("cancelled")
        if s in readable:
            b = s.recv(1024)
            if not b:
                emit("closed", errno="eof")
                break
            if len(b) != struct.calcsize(EVENT):
                emit("malformed", bytes=len(b))
                continue
            kind, flower, fupper, port, node, type_, lower, upper, ms, filter_, usr = struct.unpack(EVENT, b)
            emit(NAMES.get(kind, "event%d" % kind), found_lower=flower, found_upper=fupper, port=port, node=node,
                 type=type_, lower=lower, upper=upper, timeout=ms, filter=filter_, usr=usr.hex())
except OSError as e:
    emit("closed", errno=errno.errorcode.get(e.errno, str(e.errno)))
