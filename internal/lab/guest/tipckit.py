"""What the lab's programs share: addresses, payloads, events. Runs on a guest's python3, on kernel TIPC."""

import ctypes
import errno
import hashlib
import json
import os
import select
import socket
import struct
import sys
import threading
import time

KINDS = {
    "stream": socket.SOCK_STREAM,
    "seqpacket": socket.SOCK_SEQPACKET,
    "rdm": socket.SOCK_RDM,
    "dgram": socket.SOCK_DGRAM,
}
SCOPES = {"cluster": socket.TIPC_CLUSTER_SCOPE, "node": socket.TIPC_NODE_SCOPE}
MAX_MESSAGE = 66000  # TIPC_MAX_USER_MSG_SIZE

# Socket options and control messages that python's socket module does not name (linux/tipc.h).
TIPC_MCAST_BROADCAST = 133
TIPC_MCAST_REPLICAST = 134
TIPC_NODELAY = 138
TIPC_ERRINFO, TIPC_RETDATA, TIPC_DESTNAME = 1, 2, 3

_lock = threading.Lock()


def emit(event, **values):
    """Writes one event: a line of JSON."""
    values["event"] = event
    with _lock:
        sys.stdout.write(json.dumps(values) + "\n")
        sys.stdout.flush()


def failed(operation, e):
    """Writes the event for a system call that failed."""
    emit("error", op=operation, errno=errno.errorcode.get(e.errno, str(e.errno)))


def number(text):
    return int(text, 0)


def address(text, scope="cluster"):
    """TYPE:INSTANCE, TYPE:LOWER:UPPER, or @NODE:REF for a socket address; python's tuple for it.

    TYPE:INSTANCE is a range of one where a range is wanted, so bind takes either."""
    if text.startswith("@"):
        node, ref = (number(n) for n in text[1:].split(":"))
        return (socket.TIPC_ADDR_ID, node, ref, 0, SCOPES[scope])
    n = [number(p) for p in text.split(":")]
    if len(n) == 3:
        return (socket.TIPC_ADDR_NAMESEQ, n[0], n[1], n[2], SCOPES[scope])
    return (socket.TIPC_ADDR_NAME, n[0], n[1], 0, SCOPES[scope])


def range_of(text, scope="cluster"):
    """Like address, always a range: what bind and multicast take."""
    a = address(text, scope)
    if a[0] == socket.TIPC_ADDR_NAME:
        return (socket.TIPC_ADDR_NAMESEQ, a[1], a[2], a[2], a[4])
    return a


def text_of(a):
    """The reverse of address, for events."""
    if not a:
        return ""
    if a[0] == socket.TIPC_ADDR_ID:
        return "@%d:%d" % (a[1], a[2])
    if a[0] == socket.TIPC_ADDR_NAME:
        return "%d:%d" % (a[1], a[2])
    return "%d:%d:%d" % (a[1], a[2], a[3])


def connect_at(sock, service, node):
    """Connects to TYPE:INSTANCE looked up on one node only, which python's tuples cannot say."""
    kind, instance = (number(n) for n in service.split(":"))
    raw = struct.pack("=HBbIII", socket.AF_TIPC, socket.TIPC_ADDR_NAME, socket.TIPC_NODE_SCOPE, kind, instance, node)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(sock.fileno(), raw, len(raw)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def payload(seed, i, size):
    """Message number i of a seed: the same octets as lab.Payload in Go."""
    return hashlib.shake_128(("%s/%d" % (seed, i)).encode()).digest(size)


def numbered(i, size):
    """A message that says its place in the order: a counter of 8 octets, then filling."""
    return struct.pack(">Q", i).ljust(max(size, 8), b"\xa5")


class Tally:
    """Counts what arrives, and checks the order where messages are numbered."""

    def __init__(self, check=False):
        self.bytes = self.messages = self.next = self.disorder = 0
        self.hash = hashlib.sha256()
        self.check = check

    def add(self, data):
        self.bytes += len(data)
        self.messages += 1
        if self.check:
            (n,) = struct.unpack(">Q", data[:8])
            if n != self.next:
                self.disorder += 1
                emit("disorder", want=self.next, got=n)
            self.next = n + 1
        else:
            self.hash.update(data)

    def values(self):
        v = {"bytes": self.bytes, "messages": self.messages}
        if self.check:
            v["disorder"] = self.disorder
        else:
            v["sha256"] = self.hash.hexdigest()
        return v


def receive_exactly(sock, size):
    """Reads size octets of a stream; fewer at its end."""
    parts, left = [], size
    while left:
        b = sock.recv(min(left, 1 << 20))
        if not b:
            break
        parts.append(b)
        left -= len(b)
    return b"".join(parts)


def new_socket(options):
    """A socket of options.type with the common options applied."""
    s = socket.socket(socket.AF_TIPC, KINDS[options.type])
    if getattr(options, "importance", None) is not None:
        s.setsockopt(socket.SOL_TIPC, socket.TIPC_IMPORTANCE, options.importance)
    if getattr(options, "rcvbuf", None):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, options.rcvbuf)
    if getattr(options, "nodelay", False):
        s.setsockopt(socket.SOL_TIPC, TIPC_NODELAY, 1)
    if getattr(options, "droppable", None) is not None:
        s.setsockopt(socket.SOL_TIPC, socket.TIPC_DEST_DROPPABLE, options.droppable)
    return s


def returned(ancillary):
    """What a returned message's control data says: error, the data it carried, and the name it was sent to."""
    v = {}
    for level, kind, data in ancillary:
        if level != socket.SOL_TIPC:
            continue
        if kind == TIPC_ERRINFO:
            v["error"], v["length"] = struct.unpack("=II", data[:8])
        elif kind == TIPC_RETDATA:
            v["data"] = data.hex() if len(data) <= 64 else ""
            v["sha256"] = hashlib.sha256(data).hexdigest()
            v["octets"] = len(data)
        elif kind == TIPC_DESTNAME:
            v["name"] = "%d:%d:%d" % struct.unpack("=III", data[:12])
    return v


def until_stdin_closes():
    """Blocks until the test closes standard input: how a test ends what has no end of its own."""
    while sys.stdin.buffer.read(4096):
        pass
