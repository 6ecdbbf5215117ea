"""A vhost-user frontend and a virtio-net driver in plain Python, which can be told to break any rule.

    guest = attach(path)                     connects, negotiates, gives memory, starts the rings
    guest.send([frame])                      frames out, as a guest's driver sends them
    frames = guest.recv()                    frames in
    guest.frontend.send(request, payload, fds)       any message at all
    guest.rx[0].table["addr"][3] = 1 << 60           anything in its memory

`Frontend` speaks the protocol, `NetDriver` owns the rings of one device; `vrings` has memory and rings.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable, Sequence

from cdna.base.closing import Closing
from cdna.guest_driver.vrings import Buffer, GuestMemory, PackedRing, SplitRing, Used, Vring
from cdna.protocol.features import OFFERED_PROTOCOL, SUPPORTED
from cdna.protocol.vhost_user import (
    FLAG_NEED_REPLY,
    FLAG_REPLY,
    HEADER,
    LOG,
    REGION,
    SINGLE_REGION,
    TABLE_HEAD,
    U64,
    VERSION,
    VHOST_VRING_F_LOG,
    VRING_ADDR,
    VRING_NO_FD,
    VRING_STATE,
    ProtocolFeature,
    Request,
)
from cdna.virtio import Feature

TIMEOUT = 20.0  # seconds that a frontend waits for a reply
FRAME_ROOM = 2048  # bytes of a buffer


def features(*without: Feature, offered: int = SUPPORTED) -> int:
    """All that a backend can offer, but for some."""
    for feature in without:
        offered &= ~(1 << feature)
    return offered


PACKED = Feature.VIRTIO_F_RING_PACKED
MRG_RXBUF = Feature.VIRTIO_NET_F_MRG_RXBUF
SPLIT = features(PACKED, Feature.VHOST_F_LOG_ALL)  # what Linux takes by default
ALL_PACKED = features(Feature.VHOST_F_LOG_ALL)
LEGACY = features(PACKED, Feature.VIRTIO_F_VERSION_1, MRG_RXBUF, Feature.VHOST_F_LOG_ALL)


class Frontend(Closing):
    """One end of a vhost-user socket. Replies are waited for; what is sent is not checked."""

    def __init__(self, sock: socket.socket, memory: GuestMemory | None = None) -> None:
        sock.settimeout(TIMEOUT)
        self.sock = sock
        self.memory = memory or GuestMemory()
        self.features = 0
        self.protocol = 0
        self._owns_memory = memory is None

    @classmethod
    def connect(cls, path: str | os.PathLike[str], memory: GuestMemory | None = None) -> Frontend:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(os.fspath(path))
        except OSError:
            sock.close()
            raise
        return cls(sock, memory)

    def close(self) -> None:
        self.sock.close()
        if self._owns_memory:
            self.memory.close()

    # --- messages -----------------------------------------------------------------------------------------

    def send(
        self,
        request: int,
        payload: bytes = b"",
        fds: Sequence[int] = (),
        flags: int = VERSION,
        size: int | None = None,
    ) -> None:
        """One message; `size` is what its header says, where that is not to be the truth."""
        packet = HEADER.pack(request, flags, len(payload) if size is None else size) + payload
        self.send_raw(packet, fds)

    def send_raw(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Any bytes, any descriptors."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `ended` will tell
            socket.send_fds(self.sock, [data], list(fds))

    def reply(self) -> tuple[int, bytes, list[int]]:
        """(request, payload, descriptors) of the next reply. ConnectionError: the backend has hung up."""
        head, fds = b"", []
        while len(head) < HEADER.size:
            piece, more, _, _ = socket.recv_fds(self.sock, HEADER.size - len(head), 8)
            if not piece:
                raise ConnectionError("the backend has hung up")
            head += piece
            fds += more
        request, flags, size = HEADER.unpack(head)
        assert flags == VERSION | FLAG_REPLY
        payload = b""
        while len(payload) < size:
            piece = self.sock.recv(size - len(payload))
            assert piece
            payload += piece
        return request, payload, fds

    def call(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> bytes:
        """The payload of a request's own reply."""
        self.send(request, payload, fds)
        answered, answer, received = self.reply()
        assert answered == request
        assert not received
        return answer

    def acknowledged(self, request: int, payload: bytes = b"", fds: Sequence[int] = ()) -> int:
        """Sends a request with REPLY_ACK's flag. Returns 0 for success."""
        self.send(request, payload, fds, VERSION | FLAG_NEED_REPLY)
        answered, answer, _ = self.reply()
        assert answered == request
        return self._u64(answer)

    def get(self, request: int) -> int:
        return self._u64(self.call(request))

    def put(self, request: int, value: int) -> None:
        self.send(request, U64.pack(value))

    @staticmethod
    def _u64(payload: bytes) -> int:
        value: int = U64.unpack(payload)[0]
        return value

    def sync(self) -> None:
        """Returns when the backend has carried out all that was sent."""
        self.get(Request.GET_FEATURES)

    def ended(self) -> bool:
        """Waits for the backend to hang up, reading whatever it still says."""
        with contextlib.suppress(ConnectionResetError):
            while self.sock.recv(4096):
                pass
        return True

    # --- the usual sequences ------------------------------------------------------------------------------

    def negotiate(self, wanted: int = SPLIT, protocol: int = OFFERED_PROTOCOL) -> None:
        """As QEMU does it: what is offered, of what is wanted."""
        offered = self.get(Request.GET_FEATURES)
        self.features = offered & wanted
        if self.features >> Feature.VHOST_USER_F_PROTOCOL_FEATURES & 1:
            self.protocol = self.get(Request.GET_PROTOCOL_FEATURES) & protocol
            self.put(Request.SET_PROTOCOL_FEATURES, self.protocol)
            if self.protocol >> ProtocolFeature.MQ & 1:
                self.get(Request.GET_QUEUE_NUM)
        self.send(Request.SET_OWNER)
        self.put(Request.SET_FEATURES, self.features)

    def has(self, feature: Feature) -> bool:
        return bool(self.features >> feature & 1)

    def table(self, regions: Iterable[Sequence[int]] | None = None) -> bytes:
        """The payload of SET_MEM_TABLE."""
        regions = list(self.memory.regions if regions is None else regions)
        return TABLE_HEAD.pack(len(regions), 0) + b"".join(REGION.pack(*region) for region in regions)

    def give_memory(self) -> None:
        self.send(Request.SET_MEM_TABLE, self.table(), [self.memory.fd] * len(self.memory.regions))

    def add_region(self, region: Sequence[int], fd: int | None = None) -> None:
        self.send(Request.ADD_MEM_REG, SINGLE_REGION.pack(*region), [self.memory.fd if fd is None else fd])

    def remove_region(self, region: Sequence[int], fds: Sequence[int] = ()) -> None:
        self.send(Request.REM_MEM_REG, SINGLE_REGION.pack(*region), fds)

    def state(self, request: int, queue: int, num: int) -> None:
        self.send(request, VRING_STATE.pack(queue, num))

    def file(self, request: int, queue: int, fd: int | None) -> None:
        """SET_VRING_KICK and its kin; None: there is no descriptor."""
        word = queue if fd is not None else queue | VRING_NO_FD
        self.send(request, U64.pack(word), [] if fd is None else [fd])

    def addresses(self, queue: int, ring: Vring, log: int | None = None) -> None:
        user = self.memory.user
        flags = VHOST_VRING_F_LOG if log is not None else 0
        payload = VRING_ADDR.pack(
            queue, flags, user(ring.desc), user(ring.device), user(ring.driver), log or 0
        )
        self.send(Request.SET_VRING_ADDR, payload)

    def start(self, queue: int, ring: Vring, *, enable: bool = True, base: int | None = None) -> None:
        """Sets a ring up in the order of QEMU's messages."""
        self.state(Request.SET_VRING_NUM, queue, ring.size)
        self.state(Request.SET_VRING_BASE, queue, ring.base if base is None else base)
        self.addresses(queue, ring)
        self.file(Request.SET_VRING_KICK, queue, ring.kick_fd)
        self.file(Request.SET_VRING_CALL, queue, ring.call_fd)
        self.file(Request.SET_VRING_ERR, queue, ring.err_fd)
        if enable and self.has(Feature.VHOST_USER_F_PROTOCOL_FEATURES):
            self.state(Request.SET_VRING_ENABLE, queue, 1)

    def stop(self, queue: int) -> int:
        """GET_VRING_BASE."""
        answer = self.call(Request.GET_VRING_BASE, VRING_STATE.pack(queue, 0))
        found, base = VRING_STATE.unpack(answer)
        assert found == queue
        return int(base)

    def set_log(self, fd: int, size: int, offset: int = 0) -> None:
        self.call(Request.SET_LOG_BASE, LOG.pack(size, offset), [fd])


class NetDriver:
    """The rings of a virtio-net device: rx[i] and tx[i], queues 2i and 2i + 1. It survives its frontend.

    indirect: transmit by an indirect table. split_header: the virtio-net header in a descriptor of its own.
    rx_room: bytes of a receive buffer (with mergeable buffers a frame may take several of them).
    """

    def __init__(
        self,
        memory: GuestMemory,
        accepted: int,
        *,
        pairs: int = 1,
        size: int = 64,
        indirect: bool = False,
        split_header: bool = False,
        rx_room: int = FRAME_ROOM,
    ) -> None:
        self.memory = memory
        self.features = accepted
        self.indirect = indirect
        self.split_header = split_header
        self.rx_room = rx_room
        self.mergeable = bool(accepted >> MRG_RXBUF & 1)
        self.header_size = 12 if self.mergeable or accepted >> Feature.VIRTIO_F_VERSION_1 & 1 else 10
        self.headers: list[bytes] = []  # of the frames that the last `recv` returned
        kind = PackedRing if accepted >> PACKED & 1 else SplitRing
        event_idx = bool(accepted >> Feature.VIRTIO_F_EVENT_IDX & 1)
        self.rx: list[Vring] = [kind(memory, size, event_idx) for _ in range(pairs)]
        self.tx: list[Vring] = [kind(memory, size, event_idx) for _ in range(pairs)]
        self._tx_room: dict[int, list[int]] = {pair: [] for pair in range(pairs)}
        for pair in range(pairs):
            self.fill(pair, size)

    @property
    def queues(self) -> list[Vring]:
        """In the order of their numbers."""
        return [ring for pair in zip(self.rx, self.tx, strict=True) for ring in pair]

    def fill(self, pair: int, buffers: int) -> None:
        """Posts receive buffers."""
        for _ in range(buffers):
            self.post(pair, self.memory.alloc(self.rx_room))

    def post(self, pair: int, addr: int) -> None:
        self.rx[pair].add([Buffer(addr, self.rx_room, True)])

    # --- frames -------------------------------------------------------------------------------------------

    def send(self, frames: Sequence[bytes], pair: int = 0, header: bytes = b"") -> int:
        """Makes frames available and kicks. Returns how many there was room for."""
        ring = self.tx[pair]
        self.reclaim(pair)
        sent = 0
        while sent < len(frames) and ring.room() >= 2:
            ring.add(self._pieces(pair, frames[sent], header), self.indirect)
            sent += 1
        ring.kick()
        return sent

    def _pieces(self, pair: int, frame: bytes, header: bytes) -> list[Buffer]:
        size = self.header_size + len(frame)
        room = self._tx_room[pair]
        addr = room.pop() if room and size <= FRAME_ROOM else self.memory.alloc(max(size, FRAME_ROOM))
        self.memory.write(addr, header.ljust(self.header_size, b"\0")[: self.header_size] + frame)
        if self.split_header:
            return [Buffer(addr, self.header_size), Buffer(addr + self.header_size, len(frame))]
        return [Buffer(addr, size)]

    def reclaim(self, pair: int = 0) -> int:
        """Takes back what was sent. Returns how many frames."""
        used = self.tx[pair].take()
        self._tx_room[pair] += [u.chain[0].addr for u in used if sum(b.len for b in u.chain) <= FRAME_ROOM]
        return len(used)

    def recv(self, pair: int | None = None) -> list[bytes]:
        """Frames that have arrived, their buffers posted again. Their headers are in `headers`."""
        self.headers = []
        frames = []
        for index in range(len(self.rx)) if pair is None else (pair,):
            used = self.rx[index].take()
            frames += self._frames(used)
            for entry in used:
                self.rx[index].add(entry.chain)
            if used:
                self.rx[index].kick()
        return frames

    def _frames(self, used: list[Used]) -> list[bytes]:
        frames = []
        while used:
            if used[0].len < self.header_size:  # given back with nothing in it
                used = used[1:]
                continue
            data = self.memory.read(used[0].chain[0].addr, used[0].len)
            buffers = struct.unpack_from("<H", data, 10)[0] if self.mergeable else 1
            data += b"".join(self.memory.read(u.chain[0].addr, u.len) for u in used[1:buffers])
            self.headers.append(data[: self.header_size])
            frames.append(data[self.header_size :])
            used = used[max(1, buffers) :]
        return frames

    def move(self, memory: GuestMemory) -> None:
        """The guest has migrated to another memory that holds the same."""
        self.memory = memory
        for ring in self.queues:
            ring.move(memory)

    def close(self) -> None:
        for ring in self.queues:
            ring.close()


class AttachedGuest(Closing):
    """A driver behind a frontend, with the memory of both."""

    def __init__(self, frontend: Frontend, driver: NetDriver) -> None:
        self.frontend = frontend
        self.driver = driver
        self.memory = frontend.memory
        self.rx, self.tx = driver.rx, driver.tx
        self.send, self.recv, self.reclaim = driver.send, driver.recv, driver.reclaim

    def start(self) -> None:
        """Gives memory, starts every queue where the driver stands."""
        self.frontend.give_memory()
        for queue, ring in enumerate(self.driver.queues):
            self.frontend.start(queue, ring)
        self.frontend.sync()

    def stop(self) -> list[int]:
        """Stops every queue. Returns their bases."""
        return [self.frontend.stop(queue) for queue in range(len(self.driver.queues))]

    def reconnect(self, path: str | os.PathLike[str]) -> None:
        """Another connection for the same driver and memory, which know nothing of it."""
        self.frontend.sock.close()
        frontend = Frontend.connect(path, self.memory)
        frontend._owns_memory = self.frontend._owns_memory
        self.frontend = frontend
        self.frontend.negotiate(self.driver.features, OFFERED_PROTOCOL)
        self.start()

    def close(self) -> None:
        self.frontend.close()
        self.driver.close()


def attach(
    path: str | os.PathLike[str],
    wanted: int = SPLIT,
    protocol: int = OFFERED_PROTOCOL,
    memory: GuestMemory | None = None,
    **driver: object,
) -> AttachedGuest:
    """A guest whose rings run; `driver` are `NetDriver`'s options."""
    frontend = Frontend.connect(path, memory)
    frontend.negotiate(wanted, protocol)
    guest = AttachedGuest(frontend, NetDriver(frontend.memory, frontend.features, **driver))  # type: ignore[arg-type]
    guest.start()
    return guest
