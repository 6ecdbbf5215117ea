"""Numbers that a guest gives and the device counts with: heads, ids, queues, sizes, positions, tables."""

import os
import struct

import pytest

from cdna.abi import Fault, Refusal
from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT
from cdna.guest_driver.vrings import PackedRing
from cdna.guests.hostile import EOP, PRODUCER, RX, TX
from cdna.protocol.vhost_user import U64, VRING_NO_FD, VRING_STATE, Request
from cdna.vmm.vhost_user.net_control import NetCtrl
from tests.support.attack import NativeAttack
from tests.support.control_driver import ERR, OK, spread
from tests.support.frames import OUTSIDE
from tests.support.inflight import get_inflight, set_inflight
from tests.support.vhost_host import check_traffic, outgoing

BOTH = pytest.mark.parametrize("wanted", [SPLIT, ALL_PACKED], ids=["split", "packed"])


@pytest.mark.parametrize("ring", ["transmit", "receive"])
@pytest.mark.parametrize("head", [64, 0x7FFF, 0xFFFF])
def test_a_head_outside_its_table(attack, head, ring):
    """What lies behind the table is the available ring, and looks like a descriptor."""
    scene = attack(size=64)
    if ring == "transmit":
        scene.tx.expose(head)
    else:
        scene.rx.avail[2 : 2 + 64] = head
        scene.host.wire.put([bytes.fromhex("02000000000a") + bytes(60)])
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_CHAIN
    scene.unharmed()


@pytest.mark.parametrize("id_", [64, 0x7FFF, 0xFFFF])
def test_a_packed_buffer_with_any_id(attack, id_):
    """The id is the driver's own: it comes back as it was, and the device counts with nothing of it."""
    scene = attack(ALL_PACKED, size=64)
    assert isinstance(scene.tx, PackedRing)
    at = scene.tx.next_avail
    sent = outgoing(scene.offender, 1)
    scene.bad.send(sent)
    scene.tx.table["id"][at] = id_
    assert scene.step() == sent
    assert int(scene.tx.table["id"][at]) == id_
    assert scene.fault is None
    scene.unharmed()


QUEUE_MESSAGES = {
    Request.SET_VRING_NUM: lambda queue: VRING_STATE.pack(queue, 64),
    Request.SET_VRING_BASE: lambda queue: VRING_STATE.pack(queue, 0),
    Request.GET_VRING_BASE: lambda queue: VRING_STATE.pack(queue, 0),
    Request.SET_VRING_ENABLE: lambda queue: VRING_STATE.pack(queue, 1),
    Request.SET_VRING_ADDR: lambda queue: struct.pack("=II32x", queue, 0),
    Request.SET_VRING_KICK: lambda queue: U64.pack(queue & 0xFF | VRING_NO_FD),
    Request.SET_VRING_CALL: lambda queue: U64.pack(queue & 0xFF | VRING_NO_FD),
    Request.SET_VRING_ERR: lambda queue: U64.pack(queue & 0xFF | VRING_NO_FD),
}


@pytest.mark.parametrize("queue", [17, 0x100FE, 0xFFFFFFFF])
def test_a_queue_that_does_not_exist(attack, queue):
    """One too far, one that 16 bits take for another, and -1."""
    scene = attack()
    for request, payload in QUEUE_MESSAGES.items():
        scene.frontend.send(request, payload(queue))
        scene.reconnect()
    lines = scene.host.lines()
    for request, line in zip(QUEUE_MESSAGES, lines, strict=True):
        assert f"ended: {request.name}: queue " in line
    scene.unharmed()


@pytest.mark.parametrize("size", [0, 3, 1 << 15 | 1, 0xFFFF, 0x10040, 0xFFFFFFFF])
def test_a_ring_of_a_size_that_cannot_be(attack, size):
    """Of none, of no power of two, of more than there may be, and one that 16 bits take for 64."""
    scene = attack()
    scene.frontend.stop(1)
    scene.frontend.state(Request.SET_VRING_NUM, 1, size)
    scene.frontend.addresses(1, scene.tx)
    scene.frontend.file(Request.SET_VRING_KICK, 1, scene.tx.kick_fd)
    assert scene.frontend.ended()
    scene.unharmed()


def test_a_ring_that_grows_while_it_runs(attack):
    """The rings were looked up for the old size."""
    scene = attack(size=64)
    scene.frontend.state(Request.SET_VRING_NUM, 1, 32768)
    assert scene.frontend.ended()
    assert "which runs" in scene.host.lines()[-1]
    scene.unharmed()


@pytest.mark.parametrize("index", [64, 0x3FFF, 0x7FFF])
def test_a_base_outside_its_ring(attack, index):
    scene = attack(ALL_PACKED, size=64)
    scene.frontend.stop(1)
    scene.frontend.start(1, scene.tx, base=index | index << 16)
    assert scene.frontend.ended()
    assert "in a ring of 64" in scene.host.lines()[-1]
    scene.unharmed()


# --- positions that are kept in the guest's memory ----------------------------------------------------------


@pytest.mark.parametrize("noted", [0x4040, 0x7FFF, 0xFFFF, 0xC000 | 63, 0x4000 | 40])
def test_a_position_in_the_event_area(attack, noted):
    """A packed ring notes there where it stands, for the backend after this one; the guest may write it."""
    scene = attack(ALL_PACKED, size=64)
    scene.frontend.stop(1)
    scene.tx.device_event["off_wrap"][0] = noted
    scene.frontend.start(1, scene.tx, base=0x8000_8000)
    scene.frontend.sync()
    scene.step()
    assert scene.offender.device.info(1)["avail"] < 64
    scene.unharmed()


@pytest.mark.parametrize("value", [64, 0x7FFF, 0xFFFF])
@BOTH
def test_positions_in_the_inflight_area(attack, wanted, value):
    """The frontend keeps that area, and a backend that comes after another one goes on from there."""
    scene = attack(wanted, size=64)
    scene.bad.stop()
    area, fd = get_inflight(scene.frontend, 2, 64)
    words = struct.pack("<QHH", 0, 1, 64) + struct.pack("<H", value) * 4 + b"\1\0" * 2
    os.pwrite(fd, words, 0)
    os.pwrite(fd, words, area.size // 2)
    set_inflight(scene.frontend, area, fd)
    scene.bad.start()
    assert scene.offender.device.info(1)["avail"] == (scene.tx.base & 0x7FFF)
    assert scene.fault is None
    check_traffic(scene.host, scene.offender, scene.bad)
    os.close(fd)
    scene.unharmed()


# --- tables that a driver hands over ------------------------------------------------------------------------


def rss(table, *, last=None, unclassified=0, transmit=1, key=40, given=None):
    """VIRTIO_NET_CTRL_MQ_RSS_CONFIG, for IPv4; `last`: the table's mask, where it is not to be true."""
    head = struct.pack("<IHH", 1, len(table) - 1 if last is None else last, unclassified)
    tail = struct.pack("<HB", transmit, key) + bytes(key if given is None else given)
    return head + struct.pack(f"<{len(table)}H", *table) + tail


TABLES = {
    "a queue too far": rss([0, 8]),
    "a queue far too far": rss([0, 0x8000]),
    "the queue for the rest": rss([0, 1], unclassified=0xFFFF),
    "transmit queues": rss([0, 1], transmit=9),
    "no power of two": rss([0, 1, 0]),
    "a long table": rss([1] * 256),
    "a mask of all": rss([1] * 128, last=0xFFFF),
    "a long key": rss([0, 1], key=255),
    "a short key": rss([0, 1], given=39),
}


def test_an_indirection_table_to_queues_that_do_not_exist(attack, host, control):
    scene = attack(pairs=2)
    driver = control(scene)
    assert driver.command(NetCtrl.MQ_VQ_PAIRS_SET, b"\2\0") == OK
    answers = {case: driver.command(NetCtrl.MQ_RSS_CONFIG, table) for case, table in TABLES.items()}
    assert answers == dict.fromkeys(TABLES, ERR)
    assert spread(host, scene.offender, scene.bad) == [True, True]
    scene.unharmed()


def test_an_address_table_longer_than_its_command(attack, host, control):
    """0x2AAAAAAB addresses of six bytes are two bytes to who multiplies with 32 bits."""
    scene = attack()
    driver = control(scene)
    before = scene.offender.context.options
    for count in (2, 0x2AAAAAAB, 0x80000000, 0xFFFFFFFF):
        announced = struct.pack("<I", count) + bytes.fromhex("01005e000001")
        for data in (announced + bytes(4), bytes(4) + announced):
            assert driver.command(NetCtrl.MAC_TABLE_SET, data) == ERR
    assert scene.offender.context.options == before
    check_traffic(host, scene.offender, scene.bad)
    scene.unharmed()


# --- the native rings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ring", [TX, RX])
def test_a_producer_index_that_goes_back(native, ring):
    """What was announced is the NIC's, and may be in use."""
    scene: NativeAttack = native("none")
    scene.mallory.post(ring, [(scene.mallory.maddr(), 60, 0)] * 4)
    scene.step()
    scene.mallory.ring_doorbell(PRODUCER[ring], 3)
    scene.step()
    assert scene.fault == Fault.FAULT_PRODUCER
    scene.unharmed()


@pytest.mark.parametrize("ring", [TX, RX])
@pytest.mark.parametrize("ahead", [9, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_producer_index_beyond_the_ring(native, ahead, ring):
    """More than the ring holds, and back."""
    scene: NativeAttack = native()
    scene.mallory.ring_doorbell(PRODUCER[ring], ahead)
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_PRODUCER
    scene.unharmed()


def test_a_descriptor_that_was_used_before(native):
    """What lies in the ring is a descriptor of a page that has another owner by now."""
    scene: NativeAttack = native()
    mallory, vmm = scene.mallory, scene.machine.vmm
    mallory.write(OUTSIDE + mallory.mac + b"\x88\xb5" + bytes(46))
    for _ in range(2):
        mallory.post(TX, [(mallory.maddr(), 60, EOP)] * 4)
        assert len(scene.step()) == 4
    vmm.tables.reap(mallory.context.index)
    vmm.transfer([mallory.guest.first_page], mallory.guest, scene.victim)
    mallory.ring_doorbell(PRODUCER[TX], 9)
    assert scene.step() == []
    assert scene.fault == Fault.FAULT_SEQUENCE
    scene.neighbours.check()


@pytest.mark.parametrize("ring", [2, 0xFFFFFFFF])
def test_a_hypercall_for_a_ring_or_context_that_is_not_its_own(native, ring):
    scene: NativeAttack = native()
    mallory = scene.mallory
    request = [(mallory.maddr(), 60, EOP)]
    assert mallory.enqueue(ring, request) == Refusal.REFUSED_CONTEXT
    for context in (scene.neighbours.bob.context.index, 7, 8, 0x80000002, 0xFFFFFFFF):
        assert mallory.enqueue(TX, request, context=context) == Refusal.REFUSED_CONTEXT
    assert not scene.machine.memory.pins()[mallory.guest.first_page :][:16].any()
    scene.unharmed()
