"""Runs pieces of python that the test sends, on kernel TIPC: for what the other programs cannot be told in arguments.

Each line of standard input is JSON {n, code}: the body of a function, which runs on a thread of its own. It sees
everything of tipckit, the helpers below, and v, whose attributes stay from one piece to the next.
Events: ready; done {n, value} with what the piece returned; done {n, error} with the name of the errno of the system call
that failed, "timeout" when the socket's own timeout passed, or other text for a mistake in the piece."""

import random
import signal
import textwrap
import traceback
import types

from tipckit import *

TIPC_CONN_TIMEOUT = socket.TIPC_CONN_TIMEOUT
v = types.SimpleNamespace()


def new(kind, service=None, listen=None, timeout=20, scope="cluster", droppable=None, importance=None, rcvbuf=None, nodelay=False):
    s = socket.socket(socket.AF_TIPC, KINDS[kind])
    if droppable is not None:
        s.setsockopt(socket.SOL_TIPC, socket.TIPC_DEST_DROPPABLE, droppable)
    if importance is not None:
        s.setsockopt(socket.SOL_TIPC, socket.TIPC_IMPORTANCE, importance)
    if rcvbuf:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    if nodelay:
        s.setsockopt(socket.SOL_TIPC, TIPC_NODELAY, 1)
    if service:
        s.bind(range_of(service, scope))
    if listen is not None:
        s.listen(listen)
    s.settimeout(timeout)
    return s


def connect(kind, to, timeout=20, **options):
    s = new(kind, timeout=timeout, **options)
    s.connect(address(to))
    return s


def read_all(s, size=MAX_MESSAGE, pause=0.0):
    """Reads to the end: octets, messages, checksum and how it ended."""
    tally, end = Tally(), "eof"
    try:
        while True:
            b = s.recv(size)
            if not b:
                break
            tally.add(b)
            if pause:
                time.sleep(pause)
    except TimeoutError:
        end = "timeout"
    except OSError as e:
        end = errno.errorcode.get(e.errno, str(e.errno))
    return dict(tally.values(), end=end)


def receive(s):
    """One message with its control data."""
    b, ancillary, _, peer = s.recvmsg(MAX_MESSAGE, 4096)
    return dict(returned(ancillary), bytes=len(b), sha256=hashlib.sha256(b).hexdigest(), peer=text_of(peer))


def end_of(f):
    """How a system call ended: empty when well."""
    try:
        f()
    except TimeoutError as e:
        return errno.errorcode[e.errno] if e.errno else "timeout"
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e.errno))
    return ""


def forget():
    """Closes the sockets that v holds."""
    for name, held in list(vars(v).items()):
        for s in held if isinstance(held, list) else [held]:
            if isinstance(s, socket.socket):
                s.close()
        delattr(v, name)


def run(n, code):
    answer = {}
    try:
        space = {}
        exec("def piece():\n" + textwrap.indent(textwrap.dedent(code), "  "), globals(), space)
        answer["value"] = space["piece"]()
    except OSError as e:
        answer["error"] = errno.errorcode.get(e.errno, str(e.errno)) if e.errno else "timeout"
    except Exception:
        answer["error"] = traceback.format_exc()
    emit("done", n=n, **answer)


emit("ready")
for line in sys.stdin:
    request = json.loads(line)
    threading.Thread(target=run, args=(request["n"], request["code"]), daemon=True).start()
os._exit(0)
