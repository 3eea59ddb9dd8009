"""A TIPC server: binds a service and echoes, swallows or produces messages.

Connected types serve each connection on a thread; connectionless types answer each message's sender.
Events: ready {socket}; accepted {peer, connection}; received {bytes, messages, sha256, connection, end}, where end is
"eof" or an error's name; message {number, bytes, sha256, peer} for connectionless types; disorder {want, got}."""

import argparse

from tipckit import *

a = argparse.ArgumentParser()
a.add_argument("--type", choices=KINDS, default="stream")
a.add_argument("--service", action="append", required=True, help="TYPE:INSTANCE or TYPE:LOWER:UPPER, may be repeated")
a.add_argument("--scope", choices=SCOPES, default="cluster")
a.add_argument("--mode", choices=["sink", "echo", "source"], default="sink")
a.add_argument("--size", type=int, default=1000, help="of produced or numbered messages")
a.add_argument("--count", type=int, default=1, help="of produced messages")
a.add_argument("--seed", default="seed")
a.add_argument("--numbered", action="store_true", help="messages carry their number; check the order")
a.add_argument("--exit-after", type=int, default=0, help="connections or messages, then exit; 0: serve for ever")
a.add_argument("--slow", type=float, default=0, help="seconds to wait before each receive")
a.add_argument("--backlog", type=int, default=100)
a.add_argument("--quiet", action="store_true", help="no event for each connectionless message, a total at the end")
a.add_argument("--importance", type=int)
a.add_argument("--rcvbuf", type=int)
a.add_argument("--nodelay", action="store_true")
o = a.parse_args()


def serve(c, peer, connection):
    tally, end = Tally(o.numbered), "eof"
    try:
        if o.mode == "source":
            for i in range(o.count):
                m = numbered(i, o.size) if o.numbered else payload(o.seed, i, o.size)
                c.sendall(m) if o.type == "stream" else c.send(m)
                tally.add(m)
            c.shutdown(socket.SHUT_RDWR)
        while o.mode != "source":
            if o.slow:
                time.sleep(o.slow)
            exact = o.numbered and o.type == "stream"
            b = receive_exactly(c, o.size) if exact else c.recv(MAX_MESSAGE if o.type != "stream" else 1 << 18)
            if not b:
                break
            tally.add(b)
            if o.mode == "echo":
                c.sendall(b) if o.type == "stream" else c.send(b)
    except OSError as e:
        end = errno.errorcode.get(e.errno, str(e.errno))
    emit("received", peer=peer, connection=connection, end=end, **tally.values())
    c.close()


def connected(s):
    s.listen(o.backlog)
    emit("ready", socket=text_of(s.getsockname()))
    threads = []
    while not o.exit_after or len(threads) < o.exit_after:
        c, peer = s.accept()
        emit("accepted", peer=text_of(peer), connection=len(threads))
        t = threading.Thread(target=serve, args=(c, text_of(peer), len(threads)))
        t.start()
        threads.append(t)
    for t in threads:
        t.join()


def connectionless(s):
    emit("ready", socket=text_of(s.getsockname()))
    tally, peer = Tally(o.numbered), None
    while not o.exit_after or tally.messages < o.exit_after:
        if o.slow:
            time.sleep(o.slow)
        b, peer = s.recvfrom(MAX_MESSAGE)
        tally.add(b)
        if not o.quiet:
            emit("message", number=tally.messages, bytes=len(b), sha256=hashlib.sha256(b).hexdigest(), peer=text_of(peer))
        if o.mode == "echo":
            s.sendto(b, peer)
    emit("received", peer=text_of(peer), end="enough", **tally.values())


s = new_socket(o)
for service in o.service:
    s.bind(range_of(service, o.scope))
if o.type in ("stream", "seqpacket"):
    connected(s)
else:
    connectionless(s)
