"""A hostile guest in a process of its own: it carries out steps by hand, on what a VMM hands to a guest.

It has no driver. It speaks to the VMM's socket in messages of its own making, and maps the descriptors that
come with the answer: its memory, its context page, its rings. `HostileProcess` is how a campaign holds it: a
process forked before there is a machine, which forks another one for each row of steps, so any may die.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import signal
import socket
import struct
from collections.abc import Mapping
from random import Random
from typing import Any

from cdna import abi
from cdna.abi import Mailbox, Protection, Refusal
from cdna.base.units import parse_mac
from cdna.fuzz.arguments import Step
from cdna.protocol.hypercall import Hypercall

PAGE = mmap.PAGESIZE
PATIENCE = 5.0  # seconds for an answer of the VMM's
ENTRIES = 256  # of a hypercall, at most
_HEAD = struct.Struct("<HHIQ")  # of a hypercall: operation, ring, entries, reserved
_DESC = struct.Struct("<QHHI")  # address, length, flags, sequence number
_STATUS = struct.Struct("<iIII")
_FIELDS: Mapping[str, Any] = abi.CONTEXT_PAGE_DTYPE.fields or {}
_CONSUMER = [int(_FIELDS[name][1]) for name in ("tx_consumer", "rx_consumer")]
_FALLOC_FL_PUNCH_HOLE = 3  # with FALLOC_FL_KEEP_SIZE; linux/falloc.h
_libc = ctypes.CDLL(None, use_errno=True)


class Attacker:
    """Carries out steps until one of them ends it. What it finds that should not be is in `wrong`."""

    def __init__(self, path: str, secret: bytes) -> None:
        self.path = path
        self.secret = secret
        self.sock: socket.socket | None = None
        self.told: dict[str, Any] = {}  # the answer to its request
        self.files: dict[str, int] = {}  # memory, page, rings
        self.maps: dict[str, mmap.mmap] = {}
        self.posted = [0, 0]
        self.stopped = False  # its context, and that was counted
        self.descriptors = 0  # put before the VMM, or into a ring
        self.wrong: list[str] = []
        self.refusals: dict[str, int] = {}
        self.faults: dict[str, int] = {}

    def do(self, step: Step) -> None:
        name, arguments = step
        with contextlib.suppress(OSError):  # the VMM has sent it away, or does not answer
            getattr(self, name)(**arguments)

    def report(self) -> dict[str, Any]:
        """What its context came to, and whether others' bytes are in what it maps."""
        with contextlib.suppress(OSError, ValueError):
            self.status()
        for name, mapped in self.maps.items():
            if self.secret in mapped[:]:
                self.wrong.append(f"others' memory in its {name}")
        counts = {"descriptors": self.descriptors, "refusals": self.refusals, "faults": self.faults}
        return {"wrong": self.wrong, "counts": counts}

    # --- the connection -------------------------------------------------------------------------------------

    def connect(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.status()  # the fault that it leaves behind counts
        self.close()
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)

    def hello(self, text: str, descriptors: int) -> None:
        """Anything in place of a request."""
        self.connect()
        self._send(bytes.fromhex(text), descriptors)

    def attach(self, pages: int, settings: dict[str, Any]) -> None:
        self.connect()
        assert self.sock is not None
        request = {"version": 1, "name": "mallory", "memory": pages * PAGE, "settings": settings}
        self._send(json.dumps(request).encode())
        answer, fds, _, _ = socket.recv_fds(self.sock, 65536, 4)
        self.told = json.loads(answer) if answer else {}
        if len(fds) != 4:
            for fd in fds:
                os.close(fd)
            self.told = {}
            return
        self.files = dict(zip(("memory", "page", "rings"), fds[:3], strict=True))
        os.close(fds[3])
        for name, fd in self.files.items():
            access = mmap.ACCESS_READ if name == "rings" and self.validated else mmap.ACCESS_WRITE
            self.maps[name] = mmap.mmap(fd, os.fstat(fd).st_size, access=access)
        self.posted, self.stopped = [0, 0], False

    @property
    def validated(self) -> bool:
        return bool(self.told.get("protection") == Protection.PROTECTION_VALIDATED)

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()
        for fd in self.files.values():
            os.close(fd)
        self.sock, self.told, self.files, self.maps = None, {}, {}, {}

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _send(self, data: bytes, descriptors: int = 0) -> None:
        if self.sock is None:
            raise OSError("not connected")
        socket.send_fds(self.sock, [data], [0] * descriptors)

    def _answer(self) -> bytes:
        assert self.sock is not None
        return self.sock.recv(65536)

    # --- hypercalls -----------------------------------------------------------------------------------------

    def _call(self, op: int, entries: bytes = b"", count: int = 0, ring: int = 0) -> int:
        self._send(_HEAD.pack(op, ring, count, 0) + entries)
        answer = self._answer()
        if len(answer) != _STATUS.size:
            raise OSError("sent away")
        status: int = _STATUS.unpack(answer)[0]
        if status < 0:
            name = Refusal(status).name
            self.refusals[name] = self.refusals.get(name, 0) + 1
        return status

    def enqueue(self, ring: int, rows: list[list[Any]], repeat: int) -> None:
        """Requests of [base, page, offset, length, flags]; see `_addr`."""
        entries = [_DESC.pack(self._addr(*row[:3]), row[3], row[4], 0) for row in rows * repeat][:ENTRIES]
        taken = self._call(Hypercall.HYPERCALL_ENQUEUE, b"".join(entries), len(entries), ring)
        self.descriptors += len(entries)
        if taken > 0 and ring < 2:
            self.posted[ring] += taken

    def map_pages(self, io_pages: list[int], base: str, page: int) -> None:
        first = self._addr(base, page, 0) // PAGE
        entries = [struct.pack("<II", at, (first + i) & 0xFFFFFFFF) for i, at in enumerate(io_pages)]
        self._call(Hypercall.HYPERCALL_MAP, b"".join(entries), len(entries))

    def unmap_pages(self, io_pages: list[int]) -> None:
        self._call(Hypercall.HYPERCALL_UNMAP, struct.pack(f"<{len(io_pages)}I", *io_pages), len(io_pages))

    def reap(self) -> None:
        self._call(Hypercall.HYPERCALL_REAP)

    def status(self) -> None:
        self._send(_HEAD.pack(Hypercall.HYPERCALL_STATUS, 0, 0, 0))
        answer = self._answer()
        fault = json.loads(answer).get("fault") if answer[:1] == b"{" else None
        if fault and not self.stopped:
            self.stopped = True
            name = abi.Fault(fault["reason"]).name
            self.faults[name] = self.faults.get(name, 0) + 1

    def message(self, text: str, descriptors: int) -> None:
        """Any message at all, with descriptors that nobody asked for."""
        self._send(bytes.fromhex(text), descriptors)
        self._answer()

    def unread(self, count: int) -> None:
        """Hypercalls whose answers it leaves where they are."""
        for _ in range(count):
            self._send(_HEAD.pack(Hypercall.HYPERCALL_REAP, 0, 0, 0))

    def _addr(self, base: str, page: int, offset: int) -> int:
        """A machine address: of its "own" pages, of any of the "machine", of its "end", or "wild"."""
        own, size = int(self.told.get("maddr", 0)), int(self.told.get("size", PAGE))
        at = {"own": own + page * PAGE % size, "machine": page * PAGE, "end": own + size - PAGE}
        return (at.get(base, (1 << 64) - PAGE * (page + 1)) + offset) % (1 << 64)

    # --- what it maps ---------------------------------------------------------------------------------------

    def mailbox(self, mailbox: int, value: int) -> None:
        page = self.maps.get("page")
        if page is not None:
            struct.pack_into("<I", page, 4 * mailbox, value & 0xFFFFFFFF)
            at = abi.MAILBOX_COUNT * 4
            (rung,) = struct.unpack_from("<I", page, at)
            struct.pack_into("<I", page, at, rung | 1 << mailbox)

    def announce(self, ring: int, ahead: int) -> None:
        box = Mailbox.MAILBOX_RX_PRODUCER if ring else Mailbox.MAILBOX_TX_PRODUCER
        self.mailbox(box, self.posted[ring] + ahead)

    def room(self, ring: int) -> int:
        """Descriptors that an honest driver would still post."""
        consumer = int.from_bytes(self.maps["page"][_CONSUMER[ring] : _CONSUMER[ring] + 4], "little")
        size = int(self.told["rx_ring" if ring else "tx_ring"])
        return max(0, size - ((self.posted[ring] - consumer) & 0xFFFFFFFF))

    def frames(self, count: int, size: int, to: str) -> None:
        """What an honest driver does, but for the addresses of the frames; to: "own" for its own."""
        if self._header(to):
            self._post(0, [["own", 0, 0, size, 1]] * min(count, self.room(0)))

    def buffers(self, count: int, page: int) -> None:
        """Receive buffers."""
        if self.maps:
            self._post(1, [["own", page, 0, 2048, 0]] * min(count, self.room(1)))

    def leak(self, rows: list[list[Any]], to: str) -> None:
        """A frame whose header is in order and whose rest lies at [base, page, offset, length, flags]."""
        if self._header(to) and self.room(0) > len(rows):
            self._post(0, [["own", 0, 0, 60, 0], *rows])

    def plant(self, row: list[Any], size: int) -> None:
        """A frame to itself, into a receive buffer at [base, page, offset, length, flags]."""
        if self._header("own") and self.room(0) and self.room(1):
            self._post(1, [row])
            self._post(0, [["own", 0, 0, size, 1]])

    def _header(self, to: str) -> bool:
        """Writes the header of a frame at the start of its memory. False: it has none."""
        memory = self.maps.get("memory")
        if memory is None:
            return False
        source = parse_mac(self.told["mac"])
        memory[0:14] = (source if to == "own" else bytes.fromhex(to)) + source + b"\x88\xb5"
        return True

    def _post(self, ring: int, rows: list[list[Any]]) -> None:
        """Descriptors as the mode wants them, and the doorbell."""
        if self.validated:
            self.enqueue(ring, rows, 1)
        else:
            self.ring(ring, 0, rows)
            self.posted[ring] += len(rows)
        self.announce(ring, 0)

    def ring(self, ring: int, ahead: int, rows: list[list[Any]]) -> None:
        """Descriptors of [base, page, offset, length, flags] in its ring, where the mode lets it write."""
        rings = self.maps.get("rings")
        if rings is None or self.validated:
            return
        size = int(self.told["rx_ring" if ring else "tx_ring"])
        start = ring * int(self.told["max_ring"]) * _DESC.size
        iommu = self.told["protection"] == Protection.PROTECTION_IOMMU
        for i, (base, page, offset, length, flags) in enumerate(rows):
            addr = self._addr(base, page, offset)
            if iommu and base == "own":
                addr -= int(self.told["maddr"])
            at = start + (self.posted[ring] + ahead + i) % size * _DESC.size
            _DESC.pack_into(rings, at, addr, length, flags, i)
        self.descriptors += len(rows)

    def garbage(self, file: str, seed: int, offset: int, size: int) -> None:
        """Random bytes over a part of what it maps."""
        mapped = self.maps.get(file)
        if mapped is None or (file == "rings" and self.validated):
            return
        offset %= len(mapped)
        size = min(size, len(mapped) - offset)
        mapped[offset : offset + size] = Random(seed).randbytes(size)

    def throw_away(self, file: str) -> None:
        """Punches a hole into a file: its pages go, and others come in the middle of a copy."""
        if file in self.files:
            size = os.fstat(self.files[file]).st_size
            _libc.fallocate(self.files[file], _FALLOC_FL_PUNCH_HOLE, ctypes.c_long(0), ctypes.c_long(size))

    def truncate(self, file: str, size: int) -> None:
        """Files are sealed: no guest changes their size."""
        if file in self.files:
            try:
                os.ftruncate(self.files[file], size)
            except OSError:
                return
            if os.fstat(self.files[file]).st_size != len(self.maps[file]):
                self.wrong.append(f"its {file} file has another size")

    def write_rings(self) -> None:
        """The rings of a validated context, mapped anew or written as a file: the seal is against both."""
        if "rings" not in self.files or not self.validated:
            return
        fd = self.files["rings"]
        for way in (lambda: mmap.mmap(fd, PAGE, access=mmap.ACCESS_WRITE), lambda: os.pwrite(fd, b"\1", 0)):
            try:
                way()
            except OSError:
                continue
            self.wrong.append("the rings of a validated context are writable")


class HostileProcess:
    """Forks processes that carry out steps. Make it before the machine: it inherits what there is.

    start: begins with a row of steps. done: its report, None as long as it works; {} if it died.
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            try:
                _keep(theirs)
            finally:
                os._exit(0)
        theirs.close()
        self._sock = ours

    def start(self, path: str, secret: bytes, steps: list[Step]) -> None:
        self._sock.sendall(json.dumps({"path": path, "secret": secret.hex(), "steps": steps}).encode())

    def done(self) -> dict[str, Any] | None:
        try:
            said = self._sock.recv(1 << 20, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        report: dict[str, Any] = json.loads(said or b"{}")
        return report

    def close(self) -> None:
        self._sock.close()
        os.waitpid(self.pid, 0)


def _keep(sock: socket.socket) -> None:
    """The keeper: a child for each row of steps. It ends when the socket closes, and its child with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while order := sock.recv(1 << 20):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            sock.close()
            _attack(json.loads(order), writing)
            os._exit(0)
        os.close(writing)
        said = b""
        while piece := os.read(reading, 1 << 16):
            said += piece
        os.close(reading)
        os.waitpid(child, 0)
        sock.send(said or b"{}")


def _attack(order: dict[str, Any], writing: int) -> None:
    _libc.prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG: with its keeper
    attacker = Attacker(order["path"], bytes.fromhex(order["secret"]))
    for step in order["steps"]:
        attacker.do(step)
    with os.fdopen(writing, "w") as pipe:
        json.dump(attacker.report(), pipe)
    attacker.close()
