"""Verifies an embedded signature by docs/digsig.md alone: python3 verify.py FILE ALGORITHM PUBLIC-KEY-HEX.

Of the cryptography only SHA-256 is Python's; signatures are checked by openssl. Prints the statement's name and version.
"""
import hashlib
import struct
import subprocess
import sys
import tempfile

NAME = b".note.midplane.sig"
ALGORITHMS = {"ed25519": 1, "ecdsa-p256": 2}


def demand(ok, what):
    if not ok:
        sys.exit("bad: " + what)


def note(data):
    """Returns where the slot begins."""
    order = {1: "<", 2: ">"}[data[5]]
    if data[4] == 2:
        shoff = struct.unpack_from(order + "Q", data, 40)[0]
        shnum, names = struct.unpack_from(order + "HH", data, 60)
        entry = lambda i: struct.unpack_from(order + "IIQQQQIIQQ", data, shoff + 64 * i)
    else:
        shoff = struct.unpack_from(order + "I", data, 32)[0]
        shnum, names = struct.unpack_from(order + "HH", data, 48)
        entry = lambda i: struct.unpack_from(order + "IIIIIIIIII", data, shoff + 40 * i)
    strings = entry(names)[4]
    found = [s for s in map(entry, range(shnum)) if data[strings + s[0] :].startswith(NAME + b"\0")]
    demand(len(found) == 1, "%d notes" % len(found))
    _, kind, flags, addr, offset, size, link, info, align, entsize = found[0]
    demand((kind, flags, addr, link, info, align, entsize) == (7, 0, 0, 0, 0, 4, 0), "section")
    demand(size == 1072 and offset + size == len(data), "place")
    demand(struct.unpack_from(order + "III", data, offset) == (9, 1048, 1), "note header")
    demand(data[offset + 12 : offset + 24] == b"Midplane\0\0\0\0", "owner")
    return offset + 48


def der(raw):
    def integer(b):
        b = b.lstrip(b"\0")
        if not b or b[0] & 0x80:
            b = b"\0" + b
        return bytes([2, len(b)]) + b

    both = integer(raw[:32]) + integer(raw[32:])
    return bytes([0x30, len(both)]) + both


def openssl(algorithm, public, message, signature):
    prefix = {"ed25519": "302a300506032b6570032100", "ecdsa-p256": "3059301306072a8648ce3d020106082a8648ce3d030107034200"}[algorithm]
    with tempfile.TemporaryDirectory() as d:
        for name, content in (("key", bytes.fromhex(prefix) + public), ("message", message), ("sig", signature)):
            with open(d + "/" + name, "wb") as f:
                f.write(content)
        command = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", d + "/key", "-rawin", "-in", d + "/message", "-sigfile", d + "/sig"]
        if algorithm == "ecdsa-p256":
            command += ["-digest", "sha256"]
        return subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0


def main(path, algorithm, public):
    data = bytearray(open(path, "rb").read())
    slot = note(data)
    payload = bytes(data[slot:])
    data[slot:] = bytes(1024)
    number = ALGORITHMS[algorithm]
    key = hashlib.sha256(b"midplane digsig key v1\0" + bytes([number]) + public).digest()

    magic, version, domain, count, length = struct.unpack_from(">8sBBHI", payload)
    demand((magic, version, domain) == (b"MPDIGSIG", 1, 1) and 1 <= count <= 8, "envelope")
    at, signatures = 16, []
    for _ in range(count):
        alg, zero, size, who = struct.unpack_from(">BBH32s", payload, at)
        signatures.append((alg, who, payload[at + 36 : at + 36 + size]))
        demand(zero == 0, "reserved")
        at += 36 + size
    body = payload[at : at + length]
    demand(not any(payload[at + length :]), "zeros")

    signers = hashlib.sha256(b"".join(bytes([a]) + w for a, w, _ in signatures)).hexdigest()
    message = "midplane-digsig-v1 content %s %s %s %d %s" % (algorithm, key.hex(), signers, len(body), hashlib.sha256(body).hexdigest())
    mine = [s for a, w, s in signatures if (a, w) == (number, key)]
    demand(len(mine) == 1, "no signature by this key")
    sig = der(mine[0]) if algorithm == "ecdsa-p256" else mine[0]
    demand(openssl(algorithm, public, message.encode(), sig), "signature")

    kind, flags, _, name, size, version, _, _, digest = struct.unpack_from(">BBBBQQQQ32s", body)
    demand(kind == 1 and flags == 0 and len(body) == 68 + name, "statement")
    demand(size == len(data) and digest == hashlib.sha256(data).digest(), "content")
    print(body[68:].decode(), version)


main(sys.argv[1], sys.argv[2], bytes.fromhex(sys.argv[3]))
