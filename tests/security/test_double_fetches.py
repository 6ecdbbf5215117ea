"""What a guest changes after the NIC has read it.

Most of these need no luck: the NIC itself is made to write, in the middle of its work, over what it read
before. The last ones race a process that rewrites a frame for as long as it takes.
"""

import struct
import subprocess
import sys

import numpy as np
import pytest

from cdna.abi import Fault
from cdna.base.units import parse_mac
from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT
from cdna.guest_driver.vrings import Buffer
from cdna.guests.hostile import EOP, RX, TX
from tests.support.attack import INDIRECT, NEXT, NOWHERE, PATTERN, WRITE
from tests.support.frames import OUTSIDE, frame
from tests.support.vhost_host import mac, outgoing, until

REWRITE = """
import mmap, sys
fd, size, at, one, two = int(sys.argv[1]), *map(int, sys.argv[2:4]), *map(bytes.fromhex, sys.argv[4:6])
memory, end = mmap.mmap(fd, size), at + len(one)
print("ready", flush=True)
while True:
    memory[at:end] = two
    memory[at:end] = one
"""


@pytest.fixture
def rewriting():
    """Starts a process that writes one, and then another, at a place of a memory file, again and again."""
    started = []

    def start(memory, offset, one, two):
        words = [memory.fd, memory.size, offset, one.hex(), two.hex()]
        command = [sys.executable, "-S", "-c", REWRITE, *map(str, words)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[memory.fd])
        started.append(process)
        assert process.stdout.readline() == b"ready\n"

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_receive_buffer_over_its_own_table(attack, host):
    """The frame's first bytes become the descriptor of where the rest of it goes."""
    scene = attack()
    table, second = scene.place(64, 64), scene.place()
    scene.memory.view(table, 32, scene.rx.table.dtype)[:] = [
        (table, 64, WRITE | NEXT, 1),
        (second, 2048, WRITE, 0),
    ]
    scene.memory.write(second, bytes([PATTERN]) * 2048)
    scene.rx.table[:] = (table, 32, INDIRECT, 0)
    sent = bytearray(frame(mac(scene.offender), OUTSIDE, 0, 1000))
    at = 16 - 12  # of the frame: where entry 1 is, behind a header of 12 bytes
    sent[at + 2 : at + 16] = struct.pack("<QIHH", NOWHERE, 2048, WRITE, 0)[2:]
    host.wire.put([bytes(sent)])
    scene.step()
    assert scene.fault is None
    written = scene.memory.read(table, 64)
    assert written[12:] == bytes(sent[:52])
    assert int.from_bytes(written[24:28], "little") == 2048  # the forged entry is there
    assert scene.memory.read(second, 1000 - 52) == bytes(sent[52:])
    scene.unharmed()


def test_a_frame_to_oneself_over_ones_own_ring(attack):
    """Delivered into the transmit ring, a frame rewrites the descriptors of the frames behind it.

    Those that the NIC has read are sent as they were; the next ones are read, and judged, anew.
    """
    scene = attack(size=64)
    to_me = (mac(scene.offender) * 2 + b"\x88\xb5").ljust(20, b"\0")
    data = to_me + struct.pack("<QIHH", NOWHERE, 72, 0, 0) * 62  # from slot 2 on, behind a header of 12 bytes
    scene.rx.table["addr"][:] = scene.tx.desc
    frames = outgoing(scene.offender, 30)
    assert scene.bad.send([data, *frames]) == 31
    sent = scene.step()
    assert sent == frames[: len(sent)]
    assert 14 <= len(sent) < 30
    assert scene.fault == Fault.FAULT_MEMORY
    scene.unharmed()


def test_a_receive_buffer_over_the_available_ring(attack, host):
    """A frame from the wire becomes the list of the next buffers: heads that no table has."""
    scene = attack(size=64)
    scene.rx.table["addr"][:] = scene.rx.driver
    host.wire.put([mac(scene.offender) + b"\xff" * 250] * 4)
    assert scene.step() == []
    assert scene.fault in (Fault.FAULT_CHAIN, Fault.FAULT_AVAIL)
    scene.unharmed()


def test_a_receive_buffer_over_the_used_ring(attack, host):
    """The device keeps its own count of what it has used, and does not read it there."""
    scene = attack(size=64)
    scene.rx.table["addr"][:] = scene.rx.device - 2
    before = scene.offender.device.info(0)["used"]
    host.wire.put([mac(scene.offender) + b"\xff" * 250] * 4)
    scene.step()
    assert scene.offender.device.info(0)["used"] == before + 4
    assert scene.fault is None
    scene.unharmed()


@pytest.mark.parametrize("protection", ["iommu:direct-map", "none"])
def test_a_frame_to_oneself_over_the_frame_behind_it(native, protection):
    """A frame that was innocent when it was posted has another one's source address when its turn comes."""
    scene = native(protection)
    mallory, alice = scene.mallory, scene.neighbours.alice
    base = 0 if protection.startswith("iommu") else mallory.maddr()
    source = parse_mac(alice.context.mac)
    innocent = frame(OUTSIDE, mallory.mac, 0, 100)
    spoofed = frame(OUTSIDE, source, 0, 100)
    mallory.write((mallory.mac * 2 + b"\x88\xb5").ljust(100, b"\0") + spoofed, 1)
    mallory.write(innocent, 0, 100)
    mallory.post(RX, [(base, 2048, 0)])
    mallory.post(TX, [(base + 4096, 200, EOP), (base + 100, 100, EOP)])
    assert scene.step() == []
    assert bytes(mallory.memory[100:200]) == spoofed
    assert mallory.context.stats()["tx_drop_spoof"] == 1
    scene.unharmed()


@pytest.mark.parametrize("wanted", [SPLIT, ALL_PACKED], ids=["split", "packed"])
def test_a_source_address_that_changes_all_the_time(attack, rewriting, wanted):
    """What was checked is what is sent: no frame leaves in another's name."""
    scene = attack(wanted)
    own, other = mac(scene.offender), mac(scene.honest)
    at = scene.place()
    scene.memory.write(at, bytes(12) + OUTSIDE + own + b"\x88\xb5" + bytes(1500))
    rewriting(scene.memory, scene.memory.offset(at) + 18, own, other)
    sent = []

    def race():
        for _ in range(32):
            scene.tx.add([Buffer(at, 12 + 1514)])
        sent.extend(scene.step())
        assert len(scene.tx.take()) == 32
        return scene.stats()["tx_drop_spoof"] > 50 and len(sent) > 50

    until(race)
    assert {data[6:12] for data in sent} == {own}
    scene.unharmed()


def test_an_offload_that_changes_all_the_time(attack, rewriting):
    """The checksum's place is within the frame, or four bytes behind it: nothing is stored elsewhere."""
    scene = attack()
    at = scene.place()
    data = frame(OUTSIDE, mac(scene.offender), 0, 200)
    good, bad = struct.pack("<HH", 100, 98), struct.pack("<HH", 100, 0xFFF0)
    scene.memory.write(at, b"\1" + bytes(11) + data)
    scene.memory.write(at + 6, good)
    rewriting(scene.memory, scene.memory.offset(at) + 6, good, bad)
    sent = []

    def race():
        for _ in range(32):
            scene.tx.add([Buffer(at, 212)])
        sent.extend(scene.step())
        assert len(scene.tx.take()) == 32
        return scene.stats()["tx_drop_invalid"] > 50 and len(sent) > 50

    until(race)
    assert {(len(s), s[:198]) for s in sent} == {(200, data[:198])}
    assert np.all(scene.memory.view(at + 12, 200) == np.frombuffer(data, np.uint8))
    scene.unharmed()
