"""Drives a Linux kernel's name table and topology server with random but repeatable calls, and writes what the kernel
did: one JSON object a line, after "@@". TestLikeLinuxKernel replays the lines.

    python3 linux.py alone|node|legacy STEPS        in a guest with tipc.ko and iproute2, as root

alone: no network address; node: an address made from the identity; legacy: a <Z.C.N> address. The files beside this one
are from Linux 6.1.176 with 250 steps, gzipped. What node prints with "op":"quirk" is where this project differs."""
import ctypes, errno, json, os, random, select, socket, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def emit(**v): print("@@" + json.dumps(v, separators=(",", ":")), flush=True)
def own():
    out = subprocess.run(["tipc", "node", "get", "address"], capture_output=True, text=True).stdout.strip()
    return int(out, 16) if out else 0
def run(*a):
    p = subprocess.run(a, capture_output=True, text=True)
    return (p.stdout + p.stderr).strip()

class Sub:
    def __init__(self, order):
        self.o = order
        self.s = socket.socket(socket.AF_TIPC, socket.SOCK_SEQPACKET)
        self.s.connect((socket.TIPC_ADDR_NAME, 1, 1, 0))
        self.s.settimeout(5)
        self.subscribe(SENT, 0, 0xffffffff, 0xffffffff, 1, b"sentinel")
    def rec(self, typ, lo, up, timeout, filt, handle):
        return struct.pack(self.o + "IIIII8s", typ, lo, up, timeout, filt, handle)
    def subscribe(self, *a):
        r = self.rec(*a)
        self.s.send(r)
        return r
    def drain(self):
        out = []
        while True:
            e = self.s.recv(100)
            if e[40:48] == b"sentinel": return out
            out.append(e.hex())
SENT = 9999

class World:
    def __init__(self, seed, sole):
        self.rnd = random.Random(seed)
        self.sole = sole      # every range is bound once at most, but lower bounds repeat
        self.socks, self.binds, self.live = {}, {}, []
        self.n = 0
        self.sent = socket.socket(socket.AF_TIPC, socket.SOCK_RDM)
        self.sentup = False
        self.sender = socket.socket(socket.AF_TIPC, socket.SOCK_RDM)
        self.subs = []
        self.ranges = set()
        for i, o in enumerate("<><"):
            self.subs.append(Sub(o))
    def sync(self):
        """Events up to now, for each subscriber."""
        self.n += 1
        a = (socket.TIPC_ADDR_NAMESEQ, SENT, self.n, self.n, socket.TIPC_NODE_SCOPE)
        self.sent.bind(a)
        return [s.drain() for s in self.subs]
    def act(self, **v):
        ev = self.sync()
        if any(ev): v["events"] = ev
        emit(**v)
    def open(self):
        s = socket.socket(socket.AF_TIPC, socket.SOCK_RDM)
        s.setblocking(False)
        a = s.getsockname()
        i = len(self.binds)
        self.socks[i], self.binds[i] = s, []
        emit(op="open", sock=i, port=a[2] if len(a) > 2 else a[1])
        return i
    def pick(self):
        r = self.rnd
        typ = r.choice([100, 1124, 101])
        lo = r.randrange(10)
        if self.sole: up = lo + r.choice([0, 1, 2, 3, 5, 8])
        else: up = lo + (lo * 7 + typ) % 6
        return typ, lo, up
    def bind(self, i):
        t, lo, up = self.pick()
        if self.sole and (t, lo, up) in self.ranges: return
        sc = self.rnd.choice([2, 3])
        e = 0
        try: self.socks[i].bind((socket.TIPC_ADDR_NAMESEQ, t, lo, up, sc))
        except OSError as x: e = x.errno
        if not e:
            self.binds[i].append((t, lo, up, sc)); self.ranges.add((t, lo, up))
        self.act(op="bind", sock=i, r=[t, lo, up], scope=sc, err=e)
    def unbind(self, i):
        if self.binds[i] and self.rnd.random() < .9: b = self.rnd.choice(self.binds[i])
        elif self.sole: return
        else: b = self.pick() + (2,)
        # the kernel stops its search at the first one of the socket with another upper bound (tipc_sk_withdraw), which
        # needs equal lower bounds to happen
        t, lo, up, sc = b
        e = 0
        try: self.socks[i].bind((socket.TIPC_ADDR_NAMESEQ, t, lo, up, -sc))
        except OSError as x: e = x.errno
        if not e and b in self.binds[i]:
            k = len(self.binds[i]) - 1 - self.binds[i][::-1].index(b)
            del self.binds[i][k]
            if self.sole: self.ranges.discard((t, lo, up))
        self.act(op="unbind", sock=i, r=[t, lo, up], scope=sc, err=e)
    def close(self, i):
        self.socks[i].close()
        del self.socks[i]
        for b in self.binds[i]: self.ranges.discard(b[:3])
        self.act(op="close", sock=i)
    def got(self):
        out = []
        for i, s in self.socks.items():
            n = 0
            while True:
                try: s.recv(100); n += 1
                except BlockingIOError: break
            if n: out.append([i, n])
        return out
    def send(self):
        t, inst = self.rnd.choice([100, 1124, 101]), self.rnd.randrange(14)
        dom = self.rnd.choice([0, 0, OWN])
        raw = struct.pack("=HBbIII", socket.AF_TIPC, 2, 0, t, inst, dom)
        e = 0
        if libc.sendto(self.sender.fileno(), b"x", 1, 0, raw, 16) < 0: e = ctypes.get_errno()
        emit(op="send", r=[t, inst, inst], node=dom, err=e, got=self.got())
    def mcast(self):
        t, lo, up = self.pick()
        e = 0
        try: self.sender.sendto(b"x", (socket.TIPC_ADDR_NAMESEQ, t, lo, up))
        except OSError as x: e = x.errno
        emit(op="mcast", r=[t, lo, up], err=e, got=self.got())
    def subscribe(self):
        r = self.rnd
        k = r.randrange(3)
        if self.live and r.random() < .4:
            j = r.randrange(len(self.live))
            k, a = self.live.pop(j)
            a = a[:4] + (a[4] | 4,) + a[5:]
            rec = self.subs[k].subscribe(*a)
            time.sleep(.005)
            self.act(op="subscribe", sub=k, rec=rec.hex())
            return
        lo = r.randrange(12)
        a = (r.choice([100, 1124, 101, 0, 1]), lo, lo + r.randrange(8), 0xffffffff,
             r.choice([1, 1, 1, 2, 2, 0, 0x21, 0x41, 0x81, 0x22, 0x42]), os.urandom(0) + bytes([r.randrange(4)] * 8))
        if a[4] == 0: k = 1  # a filter without known bits is read in the other order
        rec = self.subs[k].subscribe(*a)
        self.live.append((k, a))
        time.sleep(.005)  # the server reads on its own time
        self.act(op="subscribe", sub=k, rec=rec.hex())
    def timeout(self):
        r = self.rnd
        k = r.choice([0, 2])
        lo = r.randrange(10)
        rec = self.subs[k].subscribe(100, lo, lo + 2, 40, r.choice([1, 2]), b"timeout!")
        time.sleep(.005)
        self.act(op="subscribe", sub=k, rec=rec.hex())
        time.sleep(.2)
        self.act(op="sleep", ms=1000)
    def show(self):
        rows = []
        for l in run("tipc", "nametable", "show").splitlines()[1:]:
            f = l.split()
            if f and int(f[0]) in (100, 1124, 101): rows.append([int(x) for x in f[:3]] + [f[3], int(f[4])])
        emit(op="show", rows=rows)
    def go(self, steps):
        top = [l.split() for l in run("tipc", "nametable", "show").splitlines()[1:] if l.split()[:1] == ["1"]][0]
        emit(op="world", own=OWN, legacy=LEGACY, port=int(top[4]))
        for _ in range(4): self.open()
        for n in range(steps):
            x = self.rnd.random()
            live = list(self.socks)
            i = self.rnd.choice(live)
            if x < .35: self.bind(i)
            elif x < .45: self.unbind(i)
            elif x < .65: self.send()
            elif x < .70: self.mcast()
            elif x < .88: self.subscribe()
            elif x < .90: self.timeout()
            elif x < .92 and len(live) > 2: self.close(i)
            elif x < .95 and len(live) < 7: self.open()
            elif x < .98: self.show()
        self.show()
        for i in list(self.socks): self.close(i)
        for s in self.subs: s.s.close()
        self.sent.close(); self.sender.close()
        time.sleep(.2)

def quirks():
    # equal lower bounds: is the same range found again?
    ss = [socket.socket(socket.AF_TIPC, socket.SOCK_RDM) for _ in range(4)]
    for s, r in zip(ss, [(1, 5), (1, 9), (0, 3), (1, 5)]): s.bind((socket.TIPC_ADDR_NAMESEQ, 300, r[0], r[1], 3))
    emit(op="quirk", what="equal lower", show=run("tipc", "nametable", "show"), ports=[s.getsockname()[2] for s in ss])
    for s in ss: s.close()
    emit(op="quirk", what="equal lower closed", show=run("tipc", "nametable", "show"), log=run("sh", "-c", "dmesg | grep -i bind | tail -5"))
    # big-endian timeout
    b = Sub(">")
    b.subscribe(100, 5, 6, 50, 1, b"quirk   ")
    b.s.settimeout(2)
    emit(op="quirk", what="big-endian timeout", ev=b.s.recv(100).hex())
    # two equal subscriptions, the first expires first
    b = Sub("<")
    b.subscribe(100, 5, 6, 300, 1, b"quirk   "); time.sleep(.15); b.subscribe(100, 5, 6, 300, 1, b"quirk   ")
    b.s.settimeout(1)
    n = 0
    try:
        while True: b.s.recv(100); n += 1
    except TimeoutError: pass
    emit(op="quirk", what="equal timeouts", events=n)
    # two subscriptions in one message; 27 octets; both filters
    b = Sub("<")
    r = b.rec(100, 5, 6, 50, 1, b"quirk   ")
    b.s.send(r + r); b.s.settimeout(1); n = 0
    try:
        while True: b.s.recv(100); n += 1
    except TimeoutError: pass
    emit(op="quirk", what="two in one message", events=n)
    for what, rec in (("27 octets", r[:27]), ("both filters", b.rec(100, 5, 6, 50, 3, b"x")), ("swapped", b.rec(100, 6, 5, 50, 1, b"x")), ("empty cancel", b.rec(100, 6, 5, 50, 5, b"x"))):
        b = Sub("<"); b.s.send(rec); b.s.settimeout(1)
        try: x = "read %d" % len(b.s.recv(100))
        except OSError as e: x = repr(e)
        emit(op="quirk", what=what, result=x)

mode = sys.argv[1]
LEGACY = False
if mode == "legacy":
    print(run("tipc", "node", "set", "address", "1.1.5")); LEGACY = True
if mode in ("node",):
    print(run("tipc", "node", "set", "identity", "node2"))
if mode != "alone":
    run("ip", "link", "add", "dummy0", "type", "dummy"); run("ip", "link", "set", "dummy0", "up")
    print(run("tipc", "bearer", "enable", "media", "eth", "device", "dummy0"))
    for _ in range(50):
        if own(): break
        time.sleep(.1)
OWN = own()
steps = int(sys.argv[2])
World(1, False).go(steps)
World(2, True).go(steps)
World(3, False).go(steps)
if mode == "node": quirks()
