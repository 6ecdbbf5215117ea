"""Inputs to begin with, where there is no corpus yet: `python -m fuzz.seeds TARGET FOLDER`.

They are nearly well-formed and made by chance, always the same. What a fuzzer makes of them is the corpus.
"""

from __future__ import annotations

import gzip
import random
import struct
import sys
from collections.abc import Callable
from pathlib import Path

SEEDS = 60  # of each target, about


def _packets() -> list[bytes]:
    """Frames of all kinds, from the captures that tests replay."""
    from cdna.nic.capture import read_capture

    file = Path("tests/captures/frames.pcapng")
    return [frame.data for frame in read_capture(file)] if file.exists() else []


def _bytes(r: random.Random, n: int) -> bytes:
    return r.randbytes(n)


def _u16(r: random.Random, *numbers: int) -> bytes:
    return struct.pack("<H", r.choice(numbers))


# --- native -----------------------------------------------------------------------------------------------


def native(r: random.Random) -> bytes:
    """Numbers of operations as in `targets/native.pyx`."""
    out = bytes([r.randrange(4)])
    for _ in range(r.randint(3, 24)):
        out += r.choice(_NATIVE)(r)
    return out


def _desc(r: random.Random) -> bytes:
    shape = r.choice((1, 1, 1, 0, 9, 2, 9))
    addr = bytes([r.choice((0x03, 0x04, 0x1B, 0x8B, 0xC3, 0xE4, 0xF0))])
    if addr[0] >= 0xC0:
        addr += struct.pack("<H", r.choice((0, 4090, 0x3000, 0x3FF0)))
    length = r.choice((60, 14, 64, 200, 255, 1514, 9018))
    return bytes([shape]) + addr + (struct.pack("<H", length) if shape & 8 else bytes([length & 255]))


def _header(r: random.Random) -> bytes:
    how = r.choice((4, 5, 6, 7, 0x44, 0x85, 0xC5, 0x14, 0x25)) | r.choice((0, 8, 8))
    out = bytes([how])
    if how & 8:
        csum_start, csum_offset = r.choice(((34, 16), (34, 6), (54, 16), (54, 6)))
        gso = r.choice((0, 0, 1, 3, 4, 5))
        out += struct.pack(
            "<BBHHHH", r.choice((0, 1, 1)), gso, 0, r.choice((0, 100, 1448)), csum_start, csum_offset
        )[:10]
    if how & 32:
        out += _bytes(r, 2)
    return out


_NATIVE: tuple[Callable[[random.Random], bytes], ...] = (
    lambda r: bytes([0, r.choice((0x22, 0x23, 0x24, 0x26, 0x30))]) + b"".join(_desc(r) for _ in range(3)),
    lambda r: bytes([1, r.choice((0, 1, 4, 5))]) + bytes([r.choice((0, 1, 7, 255))]),
    lambda r: bytes([2, r.choice((1, 8, 64))]),
    lambda r: bytes([3]) + struct.pack("<H", 0x3000 + r.randrange(256)) + bytes([8]) + _bytes(r, 8),
    lambda r: bytes([4]) + struct.pack("<H", 0x3000) + _header(r),
    lambda r: bytes([5, r.choice((0, 1, 2, 4))]) + _desc(r),
    lambda r: bytes([6, r.choice((0, 1, 3)), r.randrange(8), r.randrange(8), r.randrange(8), r.randrange(8)]),
    lambda r: bytes([7, r.choice((0, 1)), r.randrange(8), r.randrange(8)]),
    lambda r: bytes([8, r.choice((0, 0x10)), r.choice((4, 5, 7))]),
    lambda r: bytes([9]),
    lambda r: (
        bytes([10, r.choice((0, 4, 6, 8, 0x14, 7)), r.choice((60, 200))]) + _bytes(r, 8) + bytes([2, 8, 0])
    ),
    lambda r: bytes([11, r.choice((0, 1, 63))]),
    lambda r: bytes([13, r.choice((0, 1, 2, 0x10, 0x21, 0x42, 0x72)), r.choice((0, 10, 200))]),
    lambda r: bytes([15]),
    lambda r: bytes([16, r.randrange(64), 127]),
    *[lambda r: bytes([17, r.randrange(16)]) + _header(r) + _u16(r, 60, 200, 1514, 4000)] * 3,
)


# --- virtio -----------------------------------------------------------------------------------------------


def virtio(r: random.Random) -> bytes:
    out = bytes([r.randrange(8)])
    for _ in range(r.randint(3, 24)):
        out += r.choice(_VIRTIO)(r)
    return out


def _net_header(r: random.Random) -> bytes:
    how = r.choice((1, 2, 3, 0x12, 0x21, 0x09)) | r.choice((0, 4, 4))
    out = bytes([how])
    if how & 4:
        gso = r.choice((0, 0, 1, 3, 4, 5, 0x81))
        start, offset = r.choice(((34, 16), (34, 6), (54, 16), (54, 6)))
        out += struct.pack("<BBHHHH", r.choice((0, 1, 1)), gso, 0, r.choice((100, 1448)), start, offset)
    return out + (_bytes(r, 2) if how & 8 else b"")


def _virtio_desc(r: random.Random) -> bytes:
    kind = r.choice((0x00, 0x09, 0x12, 0x1C, 0x81, 0x84, 0xC0))
    out = bytes([r.choice((0, 0, 0, 2, 1)), kind])
    out += struct.pack("<H", r.choice((12, 64, 500, 2000))) if kind & 4 else bytes([r.choice((12, 64, 200))])
    return out + (_bytes(r, 1) if 0x80 <= kind < 0xC0 else b"") + (_bytes(r, 2) if kind >= 0xC0 else b"")


_VIRTIO: tuple[Callable[[random.Random], bytes], ...] = (
    lambda r: (
        bytes([0, r.choice((0, 1, 4, 5, 9, 13, 0x25, 0x24))]) + b"".join(_virtio_desc(r) for _ in range(4))
    ),
    lambda r: bytes([1, r.choice((1, 8, 64))]),
    lambda r: (
        bytes([2, 0]) + struct.pack("<H", r.choice((0, 0x80, 0x82, 0x200, 0x280))) + bytes([4]) + _bytes(r, 4)
    ),
    lambda r: bytes([3, r.randrange(16), r.randrange(8), 0]),
    lambda r: (
        bytes([5, r.randrange(256)]) + _net_header(r) + struct.pack("<H", r.choice((72, 200, 1526, 5000)))
    ),
    lambda r: (
        bytes([5, r.randrange(256)]) + _net_header(r) + struct.pack("<H", r.choice((72, 200, 1526, 5000)))
    ),
    lambda r: (
        bytes([5, r.randrange(256)]) + _net_header(r) + struct.pack("<H", r.choice((72, 200, 1526, 5000)))
    ),
    lambda r: bytes([6, r.choice((0, 0, 8, 3, 0x10)), 100]) + _bytes(r, 8) + bytes([2, 8, 0]),
    lambda r: bytes([7, r.choice((0, 1, 0x10, 0x18, 2)), r.choice((0, 20, 200))]),
    lambda r: bytes([8, r.choice((0, 2, 63))]),
    lambda r: bytes([9, r.randrange(16), r.choice((16, 63, 255))]),
    lambda r: bytes([9, r.randrange(16), r.choice((16, 63, 255))]),
    lambda r: bytes([10, r.randrange(2)]),
    lambda r: bytes([12, r.randrange(2)]),
)


# --- headers and frames -----------------------------------------------------------------------------------


def _offload(r: random.Random, frame: bytes) -> tuple[int, int, int]:
    """Where a checksum could be: start, offset, and which kind of segments fit."""
    if frame[12:14] == b"\x08\x00":
        start = 14 + (frame[14] & 15) * 4
        return start, 16 if frame[23] == 6 else 6, 1 if frame[23] == 6 else r.choice((3, 5))
    if frame[12:14] == b"\x86\xdd":
        return 54, 16 if frame[20] == 6 else 6, 4 if frame[20] == 6 else r.choice((3, 5))
    return 34, 6, 0


def offload(r: random.Random) -> bytes:
    frame = r.choice(_packets())[:200]
    start, offset, gso = _offload(r, frame)
    gso = r.choice((gso, gso, 0, gso | 0x80))
    header = struct.pack("<BBHHHH", r.choice((1, 1, 0)), gso, 0, r.choice((8, 100, 536, 1448)), start, offset)
    return (
        bytes([r.choice((0, 1, 1, 9))]) + header + struct.pack("<H", r.choice((0, 100, 3000, 30000))) + frame
    )


def frames(r: random.Random) -> bytes:
    out = bytes([r.randrange(8)])
    for _ in range(r.randint(1, 5)):
        frame = bytearray(r.choice(_packets())[:31])
        if not frame[0] & 1:
            frame[0:6] = bytes([2, 0xCD, 0x0A, 0, 0, r.randrange(10)])
        how = len(frame) << 3 | r.choice((0, 0, 2, 4))
        out += bytes([how]) + struct.pack("<H", r.choice((60, 200, 1514, 1000)))
        if how & 4:
            out += struct.pack(
                "<HHHH", 34, r.choice((6, 16)), r.choice((0, 0, 100)), r.choice((54, 42 | 0x4000))
            )
        out += frame
    return out


# --- messages ---------------------------------------------------------------------------------------------


def messages(r: random.Random) -> bytes:
    """As a frontend attaches, and then anything."""
    out = b"".join(_attach(r))
    for _ in range(r.randint(0, 12)):
        out += r.choice(_MESSAGES)(r)
    return out


def _request(number: int, payload: bytes = b"", fds: tuple[int, ...] = (), reply: bool = False) -> bytes:
    from fuzz.targets.messages import REQUESTS

    kinds = sum(kind << 3 * i for i, kind in enumerate(fds))
    how = len(fds) | (4 if reply else 0)
    head = bytes([[int(request) for request in REQUESTS].index(number), how, len(payload)])
    return head + struct.pack("<H", kinds) + payload


def _attach(r: random.Random) -> list[bytes]:
    from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT
    from cdna.protocol.features import OFFERED_PROTOCOL, SUPPORTED

    features = r.choice((SPLIT, ALL_PACKED, SUPPORTED))
    user, guest, size = 0x7F0000000000, 1 << 32, 8 if features != ALL_PACKED else 7
    out = [
        _request(1),
        _request(15),
        _request(16, struct.pack("=Q", OFFERED_PROTOCOL)),
        _request(3),
        _request(2, struct.pack("=Q", features)),
        _request(5, struct.pack("=IIQQQQ", 1, 0, guest, 0x10000, user, 0), (0,)),
    ]
    if r.random() < 0.3:
        out.append(_request(6, struct.pack("=QQ", 4096, 0), (0,)))
    if r.random() < 0.3:
        out.append(_request(32, struct.pack("=QQHH", 0x2000, 0, 5, size), (0,)))
    for queue in range(r.choice((2, 4, 5, 5))):
        at = user + queue * 0x400
        out += [
            _request(8, struct.pack("=II", queue, size)),
            _request(10, struct.pack("=II", queue, 0 if size == 8 else 0x80008000)),
            _request(9, struct.pack("=IIQQQQ", queue, 0, at, at + 0x200, at + 0x100, 0)),
            _request(12, struct.pack("=Q", queue), (1,)),
            _request(13, struct.pack("=Q", queue), (1,)),
            _request(18, struct.pack("=II", queue, 1)),
        ]
    return out[: r.randint(4, len(out))] if r.random() < 0.3 else out


def _command(r: random.Random) -> bytes:
    """A command in the control queue's ring, where that is a split one: queue 4."""
    command = r.choice(
        (
            b"\x00\x00\x01", b"\x00\x01\x01", b"\x01\x01" + bytes([2, 0, 0, 0, 0, 9]), b"\x02\x00\x05\x00",
            b"\x03\x00", b"\x04\x00\x02\x00", b"\x05\x00" + bytes(8),
            b"\x01\x00" + struct.pack("<I", 1) + bytes([2, 0, 0, 0, 0, 3]) + struct.pack("<I", 0),
            b"\x04\x01" + struct.pack("<IHHHHB", 1, 0, 0, 0, 1, 40) + bytes(40),
        )
    )  # fmt: skip
    ring, at = 4 * 0x400, 0x8000
    table = struct.pack("<QIHH", (1 << 32) + at, len(command), 1, 1)
    table += struct.pack("<QIHH", (1 << 32) + at + 0x100, 1, 2, 0)
    writes = ((at, command), (ring, table), (ring + 0x100, struct.pack("<HHH", 0, r.choice((1, 1, 2)), 0)))
    out = b"".join(bytes([0x80]) + struct.pack("<H", to) + bytes([len(data)]) + data for to, data in writes)
    return out + bytes([0x82])


_MESSAGES: tuple[Callable[[random.Random], bytes], ...] = (
    _command,
    _command,
    lambda r: bytes([0x81, 1]),
    lambda r: bytes([0x80]) + struct.pack("<H", r.choice((0x400, 0x500, 0x502))) + bytes([4]) + _bytes(r, 4),
    lambda r: _request(11, struct.pack("=II", r.randrange(5), 0)),
    lambda r: _request(19, bytes([2, 0, 0, 0, 0, 5, 0, 0])),
    lambda r: _request(20, struct.pack("=Q", r.choice((68, 1500, 9000))), reply=True),
    lambda r: _request(24, struct.pack("=III", 0, 12, 0) + bytes(12)),
    lambda r: _request(25, struct.pack("=III", 0, 6, r.randrange(2)) + bytes(6)),
    lambda r: _request(31, struct.pack("=QQHH", 0, 0, 4, 8)),
    lambda r: _request(36),
    lambda r: _request(37, struct.pack("=8xQQQQ", 1 << 33, 0x1000, 0x7E0000000000, 0), (0,)),
    lambda r: _request(38, struct.pack("=8xQQQQ", 1 << 33, 0x1000, 0x7E0000000000, 0), (0,)),
    lambda r: _request(39, struct.pack("=Q", r.choice((0, 15)))),
    lambda r: _request(40),
    lambda r: _request(34),
    lambda r: _request(21, b"", (2,)),
    lambda r: _request(14, struct.pack("=Q", r.randrange(5)), (1,)),
)


# --- files and texts --------------------------------------------------------------------------------------


def captures(r: random.Random) -> bytes:
    out = _pcap(r) if r.random() < 0.4 else b"".join(_section(r) for _ in range(r.choice((1, 1, 2))))
    return gzip.compress(out, mtime=0) if r.random() < 0.1 else out


def _pcap(r: random.Random) -> bytes:
    order = r.choice("<>")
    magic, head = r.choice(
        ((0xA1B2C3D4, 0), (0xA1B23C4D, 0), (0xA1B2CD34, 8), (0xA1B2CD34, 12), (0xA1B2C3D4, 4))
    )
    link = r.choice((1, 1, 0x24000001))
    out = struct.pack(order + "IHHIIII", magic, 2, r.choice((4, 4, 3)), 0, 0, 65535, link)
    for number in range(r.randint(1, 5)):
        packet = r.choice(_packets())[:80]
        out += struct.pack(order + "IIII", number, 5, len(packet), len(packet)) + bytes(head) + packet
    return out


def _section(r: random.Random) -> bytes:
    """A section of two interfaces, whose packets are of every kind."""
    order = r.choice("<>")
    out = _block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, r.choice((-1, 500))))
    for _ in range(2):
        options = r.choice((b"", struct.pack(order + "HHBxxx", 9, 1, r.choice((6, 9, 0x8A, 30)))))
        options += r.choice((b"", struct.pack(order + "HHq", 14, 8, r.choice((-1, 1000)))))
        options += r.choice((b"", struct.pack(order + "HHBxxx", 13, 1, 4)))
        end = struct.pack(order + "HH", 0, 0)
        out += _block(order, 1, struct.pack(order + "HHI", 1, 0, r.choice((0, 65535))) + options + end)
    for _ in range(r.randint(1, 5)):
        packet = r.choice(_packets())[:80]
        padded = packet + bytes(-len(packet) % 4)
        stamp = (r.randrange(4), r.randrange(1 << 30), len(packet), len(packet))
        flags = r.choice((b"", struct.pack(order + "HHI", 2, 4, r.choice((1, 0x80)))))
        interface = r.randrange(2)
        out += r.choice(
            (
                _block(order, 6, struct.pack(order + "IIIII", interface, *stamp) + padded + flags),
                _block(order, 2, struct.pack(order + "HHIIII", interface, 0, *stamp) + padded + flags),
                _block(order, 3, struct.pack(order + "I", len(packet)) + padded),
                _block(order, r.choice((4, 5, 77)), bytes(12)),
            )
        )
    return out


def _block(order: str, kind: int, body: bytes) -> bytes:
    size = struct.pack(order + "I", 12 + len(body))
    return struct.pack(order + "I", kind) + size + body + size


def plans(r: random.Random) -> bytes:
    contexts = (
        "vhost-user:/run/a.sock,queues=2,mtu=1500,mac=02:00:00:00:00:01",
        "namespace:web,address=10.77.0.5,gateway=10.77.0.254,vlan=5,rate=1G,weight=3",
        "synthetic:x,protection=iommu:shared",
    )
    lines = [
        'wire = "tap:cdna0"', 'net = ["10.77.0.0/24", "fd77::/64"]', 'host = ["10.77.0.254"]', "guests = 4",
        'socket = "/run/lab.sock"', 'metrics = "127.0.0.1:9100"', 'poll = "busy"', "cpu = 1",
        '[defaults]\nprotection = "validated"\nmtu = 9000\nvlan = "trunk"',
        '[[guest]]\nname = "web"\nmac = "02:00:00:00:00:01"\naddress = "10.77.0.10"\nrate = "100M"',
        '[[context]]\nkind = "vhost-user"\npath = "/run/vm1.sock"\nqueues = 4',
        '[[context]]\nkind = "synthetic"\nname = "load"',
    ]  # fmt: skip
    which = r.randrange(5)
    if which < 2:
        chosen = sorted(r.sample(range(len(lines)), r.randint(1, 5)))
        return bytes([which]) + "\n".join(lines[i] for i in chosen).encode()
    text = (
        r.choice(contexts) if which == 2 else r.choice(("10.0.0.0/8", "10.77.0.0/30,fd77::/127", "10.77.0.9"))
    )
    return bytes([which]) + text.encode()


MAKERS = {
    "native": native,
    "virtio": virtio,
    "offload": offload,
    "frames": frames,
    "messages": messages,
    "captures": captures,
    "plans": plans,
}


def write_seeds(target: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(target)
    for number in range(SEEDS):
        (folder / f"seed{number:02}").write_bytes(MAKERS[target](chance))


if __name__ == "__main__":
    write_seeds(sys.argv[1], Path(sys.argv[2]))
