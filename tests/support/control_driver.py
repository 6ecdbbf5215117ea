"""The driver's side of a control queue, for tests of a backend that serves it."""

from __future__ import annotations

import itertools
import struct

from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT
from cdna.guest_driver.vrings import Buffer, PackedRing, SplitRing
from cdna.virtio import Feature
from cdna.vmm.vhost_user.net_control import NetCtrl
from tests.support.frames import OUTSIDE, flows
from tests.support.vhost_host import less, mac, until

OK, ERR, UNANSWERED = 0, 1, 0xAA
MQ, RSS = Feature.VIRTIO_NET_F_MQ, Feature.VIRTIO_NET_F_RSS
EVENT_IDX, INDIRECT = Feature.VIRTIO_F_EVENT_IDX, Feature.VIRTIO_F_INDIRECT_DESC
GROUP = bytes.fromhex("01005e000001")
ELSE = bytes.fromhex("020000000077")

FORMATS = {
    "split": SPLIT,
    "split, flags": less(SPLIT, EVENT_IDX),
    "packed": ALL_PACKED,
    "packed, flags": less(ALL_PACKED, EVENT_IDX),
}
CUTS = {
    "one piece": lambda data: [data],
    "as Linux": lambda data: [data[:2], data[2:]],
    "bytes": lambda data: [bytes([byte]) for byte in data],
}


class ControlDriver:
    """The control queue's driver side, behind a guest that is attached."""

    def __init__(self, host, guest, attached, size=64, ring=None):
        self.host, self.attached = host, attached
        self.frontend, self.memory = attached.frontend, attached.memory
        accepted = self.frontend.features
        kind = PackedRing if accepted >> Feature.VIRTIO_F_RING_PACKED & 1 else SplitRing
        self.ring = ring or kind(self.memory, size, bool(accepted >> EVENT_IDX & 1))
        many = accepted >> MQ & 1 or accepted >> RSS & 1
        self.queue = guest.device.queues if many else 2
        self._room = self.memory.alloc(32768)
        self._ack = self.memory.alloc(8)
        self.memory.write(self._ack, bytes([UNANSWERED]))

    def start(self, **options):
        self.frontend.start(self.queue, self.ring, **options)
        self.frontend.sync()
        return self

    def post(self, pieces, indirect=False):
        """A command in these pieces, one behind the other in memory with a gap between."""
        chain, at = [], self._room
        for piece in pieces:
            self.memory.write(at, piece)
            chain.append(Buffer(at, len(piece)))
            at += len(piece) + 3
        self.memory.write(self._ack, bytes([UNANSWERED]) * 8)
        self.ring.add([*chain, Buffer(self._ack, 1, True)], indirect)

    def answer(self):
        """Waits for the answer to the last command."""
        used = []
        until(lambda: used.extend(self.ring.take()) or used)
        (entry,) = used
        assert entry.len == 1
        ack, *rest = self.memory.read(self._ack, 8)
        assert rest == [UNANSWERED] * 7
        return ack

    def command(self, command, data=b"", cut=CUTS["as Linux"], indirect=False):
        number = bytes(command.value if isinstance(command, NetCtrl) else command)
        self.post([piece for piece in cut(number + data) if piece], indirect)
        self.ring.kick()
        return self.answer()

    def close(self):
        self.ring.close()


def arrives(host, attached, *frames):
    """Which of these frames from the wire a guest receives."""
    host.wire.put(list(frames))
    host.step()
    received = attached.recv()
    return [there in received for there in frames]


def table(unicast=(), multicast=()):
    return b"".join(struct.pack("<I", len(part)) + b"".join(part) for part in (unicast, multicast))


def spread(host, guest, attached):
    """Which receive queues get some of many flows."""
    there = flows(mac(guest), OUTSIDE, 32)
    host.wire.put(there)
    host.step()
    found = [attached.recv(pair) for pair in range(len(attached.rx))]
    assert sorted(itertools.chain(*found)) == sorted(there)
    return [bool(frames) for frames in found]
