"""The pump: taps (here: sockets that keep frames apart, as a tap does) and contexts, in one thread."""

import os
import select
import socket
import time

import numpy as np
import pytest

import cdna
from cdna.abi import DESC_DTYPE, VNET_HEADER_DTYPE, Ring, VnetFlag, VnetGso
from cdna.guests.pump import Pump
from cdna.nic.loop import SleepingLoop
from tests.support.frames import OUTSIDE, frame, mac
from tests.support.tcp import large_segment

HEADER = bytes(VNET_HEADER_DTYPE.itemsize)
RECEIVED = HEADER[:-2] + b"\x01\x00"
DEADLINE = 20  # seconds, for what takes microseconds
UNKNOWN = b"\x00\x09\x00\x00\x64\x00" + HEADER[6:]  # a kind of segments that there is not, of 100 bytes
BEHIND = b"\x01\x00\x00\x00\x00\x00\x00\x70" + HEADER[8:]  # a checksum at byte 28672


class Lab:
    """A machine whose guests are pairs of sockets: the test has the stack's end."""

    def __init__(self, spin_us=0.0, wire="null"):
        self.machine = cdna.Machine(memory=64 << 20, wire=wire)
        self.loop = SleepingLoop(self.machine.nic, spin_us=spin_us)
        self.pump = Pump(self.loop)
        self.stacks = []
        self.ports = []
        self.drivers = []

    def guest(self, name, **settings):
        settings = {"tx_ring": 16, "rx_ring": 32, "buffer_size": 16384, **settings}
        driver = self.machine.attach(name, vnet_header=True, **settings)
        stack, tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        tap.setblocking(False)
        self.ports.append(self.pump.add(driver, tap.fileno()))
        self.stacks.append((stack, tap))
        self.drivers.append(driver)
        return driver, stack

    def start(self):
        self.machine.nic.start_engine(loop=self.loop.run)
        self.machine.vmm.start_interrupts()

    def close(self):
        self.machine.nic.stop_engine()
        self.pump.close()
        self.loop.close()
        self.machine.close()
        for pair in self.stacks:
            for end in pair:
                end.close()


@pytest.fixture(params=[0.0, 1000.0, -1], ids=["sleeps at once", "spins first", "never sleeps"])
def lab(request):
    lab = Lab(request.param)
    yield lab
    lab.close()


def get(stack):
    poll = select.poll()
    poll.register(stack, select.POLLIN)
    assert poll.poll(DEADLINE * 1000), "nothing arrived"
    return stack.recv(1 << 17)


def until(condition):
    """Whether it came true before the deadline."""
    end = time.monotonic() + DEADLINE
    while not (true := condition()) and time.monotonic() < end:
        pass
    return true


def spoil(lab, driver):
    """Fills a receive ring with nonsense, which stops the context when a frame comes."""
    rings = lab.machine.nic.rings_view(driver.context.index).view(DESC_DTYPE)
    rings[lab.machine.nic.max_ring * Ring.RING_RX :][: driver.context.settings.rx_ring]["addr"] = 1 << 60


def test_frames_both_ways(lab):
    alice, stack_a = lab.guest("alice")
    bob, stack_b = lab.guest("bob")
    lab.start()
    for number in range(200):
        there, back = frame(mac(bob), mac(alice), number), frame(mac(alice), mac(bob), number, size=1514)
        stack_a.send(HEADER + there)
        assert get(stack_b) == RECEIVED + there
        stack_b.send(HEADER + back)
        assert get(stack_a) == RECEIVED + back
    counted = {"from_tap": 200, "to_tap": 200, "lost_from_tap": 0, "lost_to_tap": 0, "lost_to_link": 0}
    found = lab.pump.stats
    assert until(lambda: counted.items() <= found(lab.ports[0]).items())  # a frame is counted after its write
    assert alice.context.stats()["tx_local"] == 200


def test_more_frames_than_rings_hold(lab):
    alice, stack_a = lab.guest("alice")
    bob, stack_b = lab.guest("bob")
    frames = [frame(mac(bob), mac(alice), number) for number in range(100)]
    for data in frames:
        stack_a.send(HEADER + data)
    lab.start()
    assert [get(stack_b)[len(HEADER) :] for _ in frames] == frames


def test_a_guest_that_comes_and_one_that_goes(lab):
    alice, stack_a = lab.guest("alice")
    lab.start()
    bob, stack_b = lab.guest("bob")
    data = frame(mac(bob), mac(alice))
    stack_a.send(HEADER + data)
    assert get(stack_b) == RECEIVED + data
    lab.pump.remove(lab.ports[1])
    lab.machine.vmm.revoke(bob.context)
    carol, stack_c = lab.guest("carol")
    data = frame(mac(carol), mac(alice))
    stack_a.send(HEADER + data)
    assert get(stack_c) == RECEIVED + data
    assert lab.ports[2] == lab.ports[1]  # a port is used again
    with pytest.raises(cdna.ConfigError, match="port 7"):
        lab.pump.remove(7)


def test_a_python_guest_beside(lab):
    """A guest that no descriptor wakes the loop for is still served."""
    alice, stack = lab.guest("alice")
    bob = lab.machine.attach("bob")
    lab.start()
    bob.send([frame(mac(alice), mac(bob), 1)])
    assert get(stack) == RECEIVED + frame(mac(alice), mac(bob), 1)
    stack.send(HEADER + frame(mac(bob), mac(alice), 2))
    assert bob.wait(DEADLINE)
    assert bob.recv() == [frame(mac(bob), mac(alice), 2)]


def test_a_python_guest_beside_one_that_faulted(lab):
    alice, _ = lab.guest("alice", protection="none")
    carol, stack_c = lab.guest("carol")
    bob = lab.machine.attach("bob")
    spoil(lab, alice)
    lab.start()
    stack_c.send(HEADER + frame(mac(alice), mac(carol)))
    assert until(lambda: alice.context.state.name == "CONTEXT_FAULTED")
    for number in range(20):
        bob.send([frame(mac(carol), mac(bob), number)])
        assert get(stack_c) == RECEIVED + frame(mac(carol), mac(bob), number)


def test_a_python_guest_that_comes_while_the_loop_sleeps():
    lab = Lab(spin_us=0.0)
    try:
        alice, stack = lab.guest("alice")
        lab.start()
        rounds = -1
        while rounds != (rounds := lab.machine.nic.counters["rounds"]):
            for _ in range(1000):
                os.sched_yield()
        bob = lab.machine.attach("bob")
        bob.send([frame(mac(alice), mac(bob))])
        assert get(stack) == RECEIVED + frame(mac(alice), mac(bob))
    finally:
        lab.close()


def test_a_rate_limit_holds_while_nothing_else_happens(lab):
    alice, stack_a = lab.guest("alice", rate=2e6)
    bob, stack_b = lab.guest("bob")
    lab.start()
    frames = [frame(mac(bob), mac(alice), number, size=1514) for number in range(60)]
    for data in frames:
        stack_a.send(HEADER + data)
    assert [get(stack_b)[len(HEADER) :] for _ in frames] == frames


def test_a_runt_is_lost_and_counted(lab):
    alice, stack_a = lab.guest("alice")
    bob, stack_b = lab.guest("bob")
    lab.start()
    stack_a.send(HEADER + bytes(13))
    stack_a.send(HEADER + frame(mac(bob), mac(alice)))
    get(stack_b)
    assert until(lambda: lab.pump.stats(lab.ports[0])["lost_from_tap"] == 1)


def segments(lab, mss, length):
    """A header that asks for segments of `mss` bytes, and a frame, as a stack hands it over."""
    data, offload = large_segment(length, mss)
    header = np.zeros(1, VNET_HEADER_DTYPE)
    header["flags"], header["gso_type"] = VnetFlag.VNET_F_NEEDS_CSUM, VnetGso.VNET_GSO_TCPV4
    header["gso_size"], header["hdr_len"] = mss, offload.hdr_len
    header["csum_start"], header["csum_offset"] = offload.csum_start, offload.csum_offset
    return header.tobytes() + mac(lab.drivers[1]) + mac(lab.drivers[0]) + data[12:]


UNCARRIED = {
    "more segments than the NIC cuts": lambda lab: segments(lab, 8, 12000),
    "a kind of segments that there is not": lambda lab: (
        UNKNOWN + frame(mac(lab.drivers[1]), mac(lab.drivers[0]))
    ),
    "a checksum behind the end": lambda lab: BEHIND + frame(mac(lab.drivers[1]), mac(lab.drivers[0])),
    "segments longer than frames": lambda lab: segments(lab, 8990, 12000),
    "a frame that is too long": lambda lab: HEADER + frame(mac(lab.drivers[1]), mac(lab.drivers[0]), 0, 9019),
    "one that the buffer cuts": lambda lab: segments(lab, 1400, 20000),
}


@pytest.mark.parametrize("case", UNCARRIED)
def test_what_a_stack_sends_and_no_nic_here_carries_stops_nobody(lab, case):
    alice, stack_a = lab.guest("alice")
    bob, stack_b = lab.guest("bob")
    lab.start()
    stack_a.send(UNCARRIED[case](lab))
    stack_a.send(HEADER + frame(mac(bob), mac(alice)))
    assert get(stack_b) == RECEIVED + frame(mac(bob), mac(alice))
    assert until(lambda: lab.pump.stats(lab.ports[0])["lost_from_tap"] == 1)
    assert lab.pump.stats(lab.ports[0])["from_tap"] == 1


@pytest.mark.parametrize(("mss", "length"), [(8, 3000), (36, 3000), (8964, 12000), (1400, 16000)])
def test_segments_that_just_fit(lab, mss, length):
    lab.guest("alice")
    lab.guest("bob")
    lab.start()
    lab.stacks[0][0].send(segments(lab, mss, length))
    assert get(lab.stacks[1][0])[12:] == segments(lab, mss, length)[12:]


def test_a_faulted_guest_is_left_alone(lab):
    alice, stack_a = lab.guest("alice", protection="none")
    bob, stack_b = lab.guest("bob")
    carol, stack_c = lab.guest("carol")
    spoil(lab, alice)
    lab.start()
    stack_c.send(HEADER + frame(mac(alice), mac(carol)))
    stack_c.send(HEADER + frame(mac(bob), mac(carol)))
    get(stack_b)
    stack_a.send(HEADER + frame(mac(bob), mac(alice)))
    stack_c.send(HEADER + frame(mac(bob), mac(carol), 2))
    assert get(stack_b) == RECEIVED + frame(mac(bob), mac(carol), 2)
    lab.machine.vmm.collect_faults()
    assert alice.context.fault is not None


def test_a_stack_that_takes_nothing(lab):
    """What its queue has no room for is lost to it, and counted."""
    alice, stack_a = lab.guest("alice")
    bob, _ = lab.guest("bob")
    carol, stack_c = lab.guest("carol")
    lab.start()
    for number in range(2000):
        stack_a.send(HEADER + frame(mac(bob), mac(alice), number, size=1514))
    stack_a.send(HEADER + frame(mac(carol), mac(alice)))
    get(stack_c)
    assert until(lambda: lab.pump.stats(lab.ports[1])["lost_to_tap"] > 0)
    assert bob.context.stats()["rx_frames"] == 2000


def test_settings_change_while_the_loop_sleeps(lab):
    alice, stack_a = lab.guest("alice")
    bob, stack_b = lab.guest("bob")
    lab.start()
    for number in range(50):
        alice.context.set(weight=1 + number)
        stack_a.send(HEADER + frame(mac(bob), mac(alice), number))
        assert get(stack_b) == RECEIVED + frame(mac(bob), mac(alice), number)


def test_to_the_wire_and_back():
    lab = Lab(wire="loopback")
    try:
        alice, stack = lab.guest("alice", anti_spoof=False)
        lab.start()
        stack.send(HEADER + frame(OUTSIDE, mac(alice), 1))  # comes back, for nobody here
        stack.send(HEADER + frame(b"\xff" * 6, mac(alice), 2))
        assert get(stack) == RECEIVED + frame(b"\xff" * 6, mac(alice), 2)
    finally:
        lab.close()


def test_what_cannot_be_a_port(lab):
    machine = lab.machine
    read_end, write_end = os.pipe()
    try:
        plain = machine.attach("plain")
        with pytest.raises(cdna.ConfigError, match="vnet_header=True"):
            lab.pump.add(plain, read_end)
        small = machine.attach("small", vnet_header=True)
        with pytest.raises(cdna.ConfigError, match="give 16384 or more"):
            lab.pump.add(small, read_end)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_closing_twice(lab):
    lab.guest("alice")
    lab.start()
    lab.machine.nic.stop_engine()
    lab.loop.close()
    lab.loop.close()
