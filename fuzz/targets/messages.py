"""vhost-user messages with descriptors, as a hostile frontend sends them, and memory that it changes.

    input:  operation, arguments | operation, arguments | ...

    operation below 0x80:   a request: how, bytes of payload, a kind for each descriptor, the payload
              0x80:         bytes into the memory: offset (2 bytes), how many, bytes
              0x81:         rounds of the NIC
              0x82:         the control queue is kicked
              0x83:         bytes that are no message: how many, bytes

The server's thread stands still: messages are carried out here, one by one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from cdna import ContextSettings, Machine
from cdna.abi import ContextState
from cdna.protocol.vhost_user import FLAG_NEED_REPLY, HEADER, VERSION, Request
from cdna.vmm.vhost_user import SUPPORTED, VhostUserServer
from fuzz.targets.fuzz_wire import FuzzWire

REQUESTS = sorted(Request)
MEMORY = 1 << 16  # bytes of the guest's memory
MESSAGES = 64  # of one input
UNREAD = 1 << 16
SETTINGS = ContextSettings(protection="table", tx_ring=16, rx_ring=16)

WRITE, POLL, KICK, RAW = range(0x80, 0x84)


class Reader:
    """The input, number by number."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self, size: int = 1) -> int:
        return int.from_bytes(self.take(size), "little")

    def take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]


class Mistakes(logging.Handler):
    """What the server calls its own mistake is a finding."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None:
            self.found.append(self.format(record))


class Scene:
    """A machine, a server, a guest that is attacked and a neighbour."""

    def __init__(self) -> None:
        self.folder = mkdtemp(prefix="cdna-fuzz-")
        self.machine = Machine(1 << 20, wire=FuzzWire(), contexts=4, max_ring=16)
        self.server = VhostUserServer(self.machine.vmm)
        self.server.lock.acquire()  # for good: its thread waits, and everything happens here
        self.guest: Any = self.server.add(
            "guest", os.path.join(self.folder, "guest"), pairs=2, settings=SETTINGS, features=SUPPORTED
        )
        self.neighbour = self.machine.attach("neighbour", tx_ring=16, rx_ring=16)
        self.memory = os.memfd_create("guest", os.MFD_CLOEXEC)
        os.ftruncate(self.memory, MEMORY)
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.ours, self.theirs = socket.socketpair()
        self.pipe = os.pipe()
        self.kinds = (
            self.memory,
            self.event,
            self.theirs.fileno(),
            self.memory,
            self.event,
            self.memory,
            self.event,
            self.pipe[0],
        )
        self.mistakes = Mistakes()
        log = logging.getLogger("cdna.vhost_user")
        log.addHandler(self.mistakes)
        log.propagate = False
        log.setLevel(logging.WARNING)

    def run(self, data: bytes) -> None:
        os.pwrite(self.memory, bytes(MEMORY), 0)
        self.mistakes.found.clear()
        front, back = socket.socketpair()
        front.setblocking(False)
        before = open_files()
        try:
            self.guest._admit(back, 0.0)
            reader = Reader(data)
            for _ in range(MESSAGES):
                if not reader or not self.guest.connected:
                    break
                self._operate(front, reader)
        finally:
            front.close()
            while self.guest.connected:
                self.guest._turn(0.0)
        assert not self.mistakes.found, self.mistakes.found[0]
        self._at_rest(before - 2)

    def _operate(self, front: socket.socket, reader: Reader) -> None:
        operation = reader.number()
        if operation == WRITE:
            at = reader.number(2)
            os.pwrite(self.memory, reader.take(reader.number())[: MEMORY - at], at)
        elif operation == POLL:
            self.machine.step(1 + reader.number() % 4)
        elif operation == KICK:
            self.guest._commands(0.0)
        else:
            packet = reader.take(reader.number()) if operation == RAW else b""
            fds: list[int] = []
            if operation != RAW:
                packet, fds = self._message(operation, reader)
            with contextlib.suppress(BrokenPipeError, BlockingIOError):
                socket.send_fds(front, [packet], fds)
            for _ in range(len(packet)):
                if not self.guest.connected or not readable(self.guest._backend.connection.fd):
                    break
                self.guest._turn(0.0)
            with contextlib.suppress(BlockingIOError, ConnectionResetError):
                for fd in socket.recv_fds(front, UNREAD, 16, socket.MSG_CMSG_CLOEXEC)[1]:
                    os.close(fd)

    def _message(self, operation: int, reader: Reader) -> tuple[bytes, list[int]]:
        request = REQUESTS[operation % len(REQUESTS)]
        how, size = reader.number(), reader.number()
        kinds = reader.number(2)
        fds = [self.kinds[kinds >> 3 * i & 7] for i in range(how & 3)]
        if how & 0xC0 == 0xC0:  # more than any message has
            fds *= 5
        flags = VERSION | (FLAG_NEED_REPLY if how & 4 else 0)
        payload = reader.take(size)
        said = reader.number(2) if how & 8 else len(payload)
        return HEADER.pack(request, flags, said) + payload, fds

    def _at_rest(self, files: int) -> None:
        """Nothing of the frontend is left, and the neighbour runs."""
        deadline = time.monotonic() + 20
        while self.guest.discard._waiting:  # a thread closes some
            assert time.monotonic() < deadline, "descriptors that do not close"
        assert open_files() == files, "descriptors are left open"
        vmm = self.machine.vmm
        assert self.guest.context.state == ContextState.CONTEXT_RUNNING, "the context is not given back whole"
        assert self.neighbour.context.state == ContextState.CONTEXT_RUNNING, "a neighbour was stopped"
        assert not self.guest.device.memory.regions(), "memory is left mapped"
        vmm.handle_interrupts()
        vmm.faults.clear()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def readable(fd: int) -> bool:
    import select

    return bool(select.select([fd], [], [], 0)[0])


_scene: Scene | None = None


def set_up() -> None:
    global _scene
    if _scene is None:
        _scene = Scene()


def run(data: bytes) -> None:
    """One input. Any exception is a finding."""
    set_up()
    assert _scene is not None
    _scene.run(data)


def tear_down() -> None:
    """For a process that goes on."""
    global _scene
    if _scene is not None:
        scene, _scene = _scene, None
        scene.server.lock.release()
        scene.server.close()
        scene.machine.close()
        for fd in (scene.memory, scene.event, *scene.pipe):
            os.close(fd)
        scene.ours.close()
        scene.theirs.close()
        Path(scene.folder).rmdir()
