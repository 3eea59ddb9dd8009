"""A TIPC client: sends messages to a service and, when asked, reads what comes back.

Events: connected {peer}; sent {bytes, messages, sha256}; received {bytes, messages, sha256, end};
broken {errno, ms} when a held connection ends; mismatch {number} for a wrong echo; error {op, errno}."""

import argparse

from tipckit import *

a = argparse.ArgumentParser()
a.add_argument("--type", choices=KINDS, default="stream")
a.add_argument("--to", required=True, help="TYPE:INSTANCE or @NODE:REF")
a.add_argument("--node", type=number, help="look the service up on this node only (connected types)")
a.add_argument("--size", type=int, default=1000)
a.add_argument("--count", type=int, default=1)
a.add_argument("--seed", default="seed")
a.add_argument("--numbered", action="store_true", help="messages carry their number")
a.add_argument("--endless", action="store_true", help="send until standard input closes")
a.add_argument("--interval", type=float, default=0, help="seconds between messages")
a.add_argument("--echo", action="store_true", help="read each message back and compare")
a.add_argument("--receive", action="store_true", help="afterwards read to the end")
a.add_argument("--implied", action="store_true", help="connect by the first message, not by connect()")
a.add_argument("--hold", action="store_true", help="afterwards wait for the connection to break")
a.add_argument("--abort", action="store_true", help="exit without shutdown and without reading")
a.add_argument("--bind", help="own service, so that replies can name it")
a.add_argument("--timeout", type=float, default=20, help="seconds for each receive")
a.add_argument("--importance", type=int)
a.add_argument("--rcvbuf", type=int)
a.add_argument("--droppable", type=int)
a.add_argument("--nodelay", action="store_true")
o = a.parse_args()

is_connected = o.type in ("stream", "seqpacket")
to = address(o.to)
s = new_socket(o)
s.settimeout(o.timeout)
if o.bind:
    s.bind(range_of(o.bind))

stop = threading.Event()
if o.endless:
    threading.Thread(target=lambda: (until_stdin_closes(), stop.set()), daemon=True).start()


def receive(size):
    if o.type == "stream":
        return receive_exactly(s, size)
    return s.recv(MAX_MESSAGE)


def send(m, i):
    if not is_connected or (i == 0 and o.implied):
        s.sendto(m, to)
    elif o.type == "stream":
        s.sendall(m)
    else:
        s.send(m)
    if i == 0 and o.implied and is_connected:
        # The reply to the implied SYN completes the connection; until it is read, further sends wait for it.
        emit("connected", peer=o.to)


def main():
    sent, operation = Tally(o.numbered), "connect"
    try:
        if is_connected and not o.implied:
            connect_at(s, o.to, o.node) if o.node else s.connect(to)
            emit("connected", peer=text_of(s.getpeername()))
        operation, i = "send", 0
        while not stop.is_set() and (o.endless or i < o.count):
            m = numbered(i, o.size) if o.numbered else payload(o.seed, i, o.size)
            send(m, i)
            sent.add(m)
            if o.echo:
                operation = "receive"
                if receive(len(m)) != m:
                    emit("mismatch", number=i)
                operation = "send"
            if o.interval:
                time.sleep(o.interval)
            i += 1
        emit("sent", **sent.values())
        if o.abort:
            os._exit(0)
        operation = "receive"
        if o.receive:
            tally, end = Tally(o.numbered), "eof"
            try:
                while True:
                    exact = o.numbered and o.type == "stream"
                    b = receive_exactly(s, o.size) if exact else s.recv(MAX_MESSAGE if o.type != "stream" else 1 << 18)
                    if not b:
                        break
                    tally.add(b)
            except OSError as e:
                end = errno.errorcode.get(e.errno, str(e)) if e.errno else "timeout"
            emit("received", end=end, **tally.values())
        if o.hold:
            start, reason = time.monotonic(), "eof"
            s.settimeout(None)
            try:
                while s.recv(MAX_MESSAGE):
                    pass
            except OSError as e:
                reason = errno.errorcode.get(e.errno, str(e.errno))
            emit("broken", errno=reason, ms=int((time.monotonic() - start) * 1000))
        if is_connected:
            s.shutdown(socket.SHUT_RDWR)
    except TimeoutError:
        emit("error", op=operation, errno="timeout")
        return 1
    except OSError as e:
        failed(operation, e)
        return 1
    return 0


sys.exit(main())
