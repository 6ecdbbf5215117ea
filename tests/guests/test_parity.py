"""A guest in this process and one that knows only a socket: the same driver, the same behaviour."""

import pytest

from cdna import ConfigError, ContextFault, Machine, Refused, RemoteDriver
from cdna.abi import Refusal
from cdna.base.units import PROTECTIONS, parse_mac

ETHERTYPE = b"\x88\xb5"


def mac_of(driver):
    return parse_mac(driver.context.mac)


def frame_between(source, to, size=100, fill=0):
    return mac_of(to) + mac_of(source) + ETHERTYPE + bytes([fill]) * (size - 14)


@pytest.fixture
def machine():
    machine = Machine(32 << 20, wire="loopback", contexts=8)
    yield machine
    machine.close()


@pytest.fixture(params=["local", "remote"])
def attach(request, machine, tmp_path):
    """Makes a driver of either kind."""
    if request.param == "local":
        yield machine.attach
        return
    path = tmp_path / "vmm"
    drivers = []

    def attach_remote(name, **settings):
        driver = RemoteDriver(path, name=name, **settings)
        drivers.append(driver)
        return driver

    choices = ["protection", "tx_ring", "rx_ring"]
    with machine.serve(path, protections=PROTECTIONS, choices=choices, macs=["02:00"]):
        yield attach_remote
        for driver in drivers:
            driver.close()


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_frames_go_both_ways_in_every_protection_mode(machine, attach, protection):
    a, b = attach("a", protection=protection), machine.attach("b")
    there = [frame_between(a, b, fill=i) for i in range(40)]
    back = [frame_between(b, a, size, fill=7) for size in (60, 1514, 2048, 4000, 9014)]
    for _ in range(20):  # the rings wrap
        assert a.send(there) == 40
        assert b.send(back) == 5
        machine.step(2)
        assert b.recv() == there
        assert a.recv() == back
    assert a.tx_pending == 0
    assert a.context.stats()["tx_frames"] == 800
    assert a.context.stats()["rx_frames"] == 100


def test_buffers_without_a_copy(machine, attach):
    a, b = attach("a"), machine.attach("b")
    frame = frame_between(a, b, 200)
    views = a.tx_views(3)
    for view in views:
        view.data[: len(frame)] = list(frame)
        view.length = len(frame)
    assert a.submit(views) == 3
    b.send([frame_between(b, a, 3000, fill=9)])
    machine.step(2)
    assert b.recv() == [frame] * 3
    received = a.recv_views()
    assert b"".join(part.data.tobytes() for part in received[0]) == frame_between(b, a, 3000, fill=9)
    a.release(received)
    assert a.rx_waiting == 0


def test_a_full_ring_takes_what_it_can_and_goes_on_later(machine, attach):
    a, b = attach("a", tx_ring=16), machine.attach("b")
    frame = frame_between(a, b)
    assert a.send([frame] * 40) == 16
    assert a.tx_pending == 16
    machine.step()
    assert a.send([frame] * 40) == 16
    machine.step()
    assert len(b.recv()) == 32


def test_a_frame_of_no_possible_length_is_said_so(machine, attach):
    a = attach("a")
    with pytest.raises(ConfigError, match="frame 0 has 3 bytes"):
        a.send([b"abc"])
    with pytest.raises(ConfigError, match="buffer with length"):
        a.submit(a.tx_views(1))


def test_wait_wakes_for_a_frame(machine, attach):
    a, b = attach("a"), machine.attach("b")
    machine.start()
    frame = frame_between(b, a)
    for _ in range(50):
        b.send([frame])
        assert a.wait(60)
        assert a.recv() == [frame]
    assert a.wait(0) is False


def test_a_stopped_context_tells_why(machine, attach):
    a = attach("a", protection="iommu:direct-map", tx_ring=8)
    victim = machine.attach("victim")
    machine.nic.rings_view(a.context.index)[8:10] = 0, 0  # a descriptor without a length
    frame = frame_between(a, victim)
    a.send([frame])
    machine.nic.rings_view(a.context.index)[8:10] = 3, 0
    machine.step()
    assert a.faulted
    with pytest.raises(ContextFault, match=r"guest 'a'.*FAULT_LENGTH in RING_TX at index 0") as caught:
        a.wait(60)
    assert caught.value.report == machine.vmm.faults[0]
    assert not victim.faulted


def test_a_hypercall_on_a_stopped_context_tells_why(machine, attach):
    a, b = attach("a"), machine.attach("b")
    frame = frame_between(a, b)
    a.send([frame])
    machine.nic.rings_view(a.context.index)[12] ^= 0x55  # the number of the descriptor
    machine.step()
    with pytest.raises(ContextFault, match="FAULT_SEQUENCE"):
        a.send([frame])


def test_a_refusal_says_what_was_refused(machine, attach):
    a, b = attach("a"), machine.attach("b")
    machine.nic.halt(a.context.index)
    with pytest.raises(Refused, match="REFUSED_CONTEXT, not a running context") as caught:
        a.send([frame_between(a, b)] * 3)
    assert caught.value.reason == Refusal.REFUSED_CONTEXT
    assert a.tx_pending == 0


def test_the_link_and_the_address(machine, attach):
    a = attach("a", mac="02:00:00:00:00:77")
    assert a.context.mac == "02:00:00:00:00:77"
    assert a.link
    with pytest.raises(ConfigError, match="02:00:00:00:00:77 is context"):
        attach("b", mac="02:00:00:00:00:77")
    with pytest.raises(ConfigError, match="'a' exists"):
        attach("a")
    with pytest.raises(ConfigError, match="power of two"):
        attach("c", tx_ring=12)
    assert set(machine.vmm.guests) == {"a"}
