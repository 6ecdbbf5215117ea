"""What a guest can have the others lack: memory, descriptors, table entries, and turns."""

import os
import socket

import pytest

from cdna.abi import Fault
from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT, Frontend
from cdna.guests.hostile import EOP, PRODUCER, RX, TX
from cdna.protocol.vhost_user import Request
from tests.support.attack import INDIRECT, NEXT
from tests.support.frames import BROADCAST, frame
from tests.support.vhost_host import check_traffic, incoming, mac, outgoing, until

BOTH = pytest.mark.parametrize("wanted", [SPLIT, ALL_PACKED], ids=["split", "packed"])


@BOTH
def test_frames_for_a_guest_that_takes_none(attack, host, wanted):
    """Thousands: they are dropped and counted where they arrive, and nothing is kept for later."""
    scene = attack(wanted)
    room = scene.rx.room() + len(scene.rx.chains)
    sent, before = 0, scene.stats()

    def gone():
        """All that was sent has arrived, or was dropped."""
        host.step(10)
        now = scene.stats()
        taken, dropped = (now[name] - before[name] for name in ("rx_frames", "rx_drop_no_buffer"))
        assert taken <= room
        return taken + dropped == sent

    for _ in range(5):
        sent += host.wire.put(incoming(scene.offender, 500))
        until(gone)
    assert scene.stats()["rx_drop_no_buffer"] == sent - room
    scene.unharmed()
    scene.bad.recv()
    host.step(10)
    assert scene.bad.recv() == []  # nothing had waited
    check_traffic(host, scene.offender, scene.bad)


def test_local_frames_for_a_guest_that_takes_none(attack, host):
    """Of another guest's: its transmit ring is not held up either."""
    scene = attack()
    scene.rx.table["len"][:] = 0
    sent = [frame(mac(scene.offender), mac(scene.honest), i) for i in range(30)]
    for _ in range(5):
        assert scene.good.send(sent) == 30
        host.step(4)
        assert scene.good.reclaim() == 30
    scene.unharmed()


@BOTH
def test_frames_to_oneself(attack, host, wanted):
    """A device that handles a frame while it handles a frame goes deeper each time; here each is one copy."""
    scene = attack(wanted, size=64)
    mine = [frame(mac(scene.offender) * 2, b"", i) for i in range(30)]
    for _ in range(5):
        assert scene.bad.send(mine) == 30
        assert scene.step() == []
        assert scene.bad.recv() == mine
    assert scene.stats()["rx_frames"] == 10 + 150
    scene.unharmed()


def test_broadcasts_do_not_come_back(native):
    scene = native()
    mallory = scene.mallory
    mallory.write(frame(BROADCAST, mallory.mac))
    mallory.post(RX, [(mallory.maddr(1 + i), 2048, 0) for i in range(8)])
    mallory.post(TX, [(mallory.maddr(), 60, EOP)] * 8)
    assert len(scene.step()) == 8
    assert mallory.consumer(RX) == 0
    for driver in (scene.neighbours.alice, scene.neighbours.bob):
        assert len(driver.recv()) == 8
    scene.unharmed()


def test_a_doorbell_that_never_stops(native):
    """However often it is rung between two rounds, with whatever bits, the NIC looks once a round."""
    scene = native()
    mallory = scene.mallory
    before = mallory.context.stats()["doorbells"]
    for _ in range(50):
        for mailbox in range(24):
            mallory.ring_doorbell(mailbox, 0)
        mallory.page["doorbell"][0] = 0xFFFFFFFF
        mallory.page["mailbox"][0, PRODUCER[TX]] = 0
        scene.step(1)
    assert mallory.context.stats()["doorbells"] - before == 50
    assert scene.fault is None
    scene.unharmed()


def test_kicks_that_never_stop(attack):
    """Each kick is a write to a descriptor that the NIC never reads, and looks at once."""
    scene = attack()
    for _ in range(2000):
        scene.tx.kick(always=True)
        scene.rx.kick(always=True)
    assert scene.step() == []
    scene.unharmed()


def test_one_ring_full_of_work(attack, host):
    """The most that a buffer can cost, in every buffer: the honest guest's frames pass between them."""
    scene = attack(size=256)
    at = scene.place()
    scene.memory.write(at, bytes(12) + outgoing(scene.offender, 1)[0])
    pieces = [(at + i, 1) for i in range(72)] + [(at, 0)] * 181
    table = scene.table([(a, n, NEXT * (i < 252), i + 1) for i, (a, n) in enumerate(pieces)])
    scene.tx.table[:] = (table, 16 * 253, INDIRECT, 0)
    for head in range(256):
        scene.tx.expose(head)
    sent = outgoing(scene.honest, 10)
    assert scene.good.send(sent) == 10
    host.step(2)
    out = host.wire.get()
    assert [data for data in out if data in sent] == sent
    assert 0 < len(out) - 10 < 200  # of the offender's: it has its turns, and not more
    assert scene.fault is None
    until(lambda: host.step(4) or int(scene.tx.used[1]) == int(scene.tx.avail[1]))
    host.wire.get()
    scene.unharmed()


def test_a_buffer_that_costs_too_much(attack):
    """A chain of all that there may be, and one more."""
    scene = attack()
    at = scene.place()
    table = scene.table([(at, 0, NEXT, i + 1) for i in range(256)] + [(at, 72, 0, 0)])
    scene.chain((table, 16 * 257, INDIRECT, 0))
    scene.step()
    assert scene.fault == Fault.FAULT_CHAIN
    scene.unharmed()


# --- descriptors and connections ----------------------------------------------------------------------------


def test_a_crowd_at_one_socket(attack, host):
    """One frontend is attached; the others are sent away, and leave nothing."""
    scene = attack()
    held = host.held()
    for _ in range(64):
        with Frontend.connect(scene.offender.path, scene.memory) as other:
            assert other.ended()
    host.settle(held)
    check_traffic(host, scene.offender, scene.bad)
    scene.unharmed()


def test_descriptors_that_are_replaced_again_and_again(attack, host):
    """Kick, call, error, log, channel: the one before is closed when the next one comes."""
    scene = attack()
    ours, theirs = socket.socketpair()
    held = host.held()
    event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    for _ in range(100):
        for request in (Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR):
            scene.frontend.file(request, 1, event)
        scene.frontend.send(Request.SET_BACKEND_REQ_FD, b"", [theirs.fileno()])
        scene.frontend.send(Request.SET_LOG_FD, b"", [event])
    scene.frontend.sync()
    os.close(event)
    held["files"] = sorted([*held["files"], "socket"])  # the channel, of which there was none
    host.settle(held)
    ours.close()
    theirs.close()
    scene.unharmed()
