"""Multicast. `mcast.py send` sends messages to every socket bound in a range; `mcast.py receive` binds one socket for
each --service and reports each message it takes.

Events: ready {sockets}; message {socket, number, bytes, sha256, peer}; sent {bytes, messages}; error {op, errno}.
The receiver ends when standard input closes, with one event total {socket, messages, numbers} a socket."""

import argparse

from tipckit import *

a = argparse.ArgumentParser()
a.add_argument("mode", choices=["send", "receive"])
a.add_argument("--to", help="TYPE:LOWER:UPPER")
a.add_argument("--service", action="append", default=[], help="TYPE:INSTANCE or TYPE:LOWER:UPPER, a socket each")
a.add_argument("--type", choices=["rdm", "dgram"], default="rdm")
a.add_argument("--size", type=int, default=100)
a.add_argument("--count", type=int, default=1)
a.add_argument("--method", choices=["auto", "broadcast", "replicast"], default="auto")
a.add_argument("--quiet", action="store_true", help="no event for each message")
a.add_argument("--importance", type=int)
a.add_argument("--rcvbuf", type=int)
o = a.parse_args()


def send():
    s = new_socket(o)
    if o.method != "auto":
        option = TIPC_MCAST_BROADCAST if o.method == "broadcast" else TIPC_MCAST_REPLICAST
        s.setsockopt(socket.SOL_TIPC, option, None, 0)
    tally = Tally(True)
    for i in range(o.count):
        m = numbered(i, o.size)
        try:
            s.sendto(m, range_of(o.to))
        except OSError as e:
            failed("send", e)
            return 1
        tally.add(m)
    emit("sent", **tally.values())
    return 0


def receive():
    sockets, numbers = [], []
    for service in o.service:
        s = new_socket(o)
        s.bind(range_of(service))
        sockets.append(s)
        numbers.append([])
    emit("ready", sockets=[text_of(s.getsockname()) for s in sockets])
    open_ = True
    while open_:
        readable, _, _ = select.select(sockets + [sys.stdin.buffer], [], [])
        for f in readable:
            if f is sys.stdin.buffer:
                open_ = bool(os.read(0, 4096))
                continue
            b, peer = f.recvfrom(MAX_MESSAGE)
            i = sockets.index(f)
            (n,) = struct.unpack(">Q", b[:8])
            numbers[i].append(n)
            if not o.quiet:
                emit("message", socket=i, number=n, bytes=len(b), sha256=hashlib.sha256(b).hexdigest(), peer=text_of(peer))
    for i, n in enumerate(numbers):
        emit("total", socket=i, messages=len(n), in_order=n == list(range(len(n))))
    return 0


sys.exit(send() if o.mode == "send" else receive())
