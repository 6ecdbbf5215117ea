"""Frames from the wire with an address of ours as their source: counted for its context, and delivered."""

from __future__ import annotations

import pytest

from cdna.lab.duplicates import Duplicates
from cdna.machine import Machine
from cdna.nic.queue_wire import QueueWire
from cdna.nic.wires import named_wire
from tests.support.frames import BROADCAST, OUTSIDE, frame, mac, receive_all, vlan_tag

GROUP = bytes.fromhex("333300000001")


def test_group_frames_of_our_own_source_are_counted_and_delivered() -> None:
    wire = QueueWire(256)
    machine = Machine(wire=wire)
    a, b = machine.attach("a"), machine.attach("b", all_multicast=True)
    frames = [
        frame(BROADCAST, mac(a), 1),  # ARP of a station that has a's address
        frame(GROUP, mac(a), 2),  # its neighbour discovery
        frame(BROADCAST, OUTSIDE, 3),
        frame(mac(b), OUTSIDE, 4),
        frame(mac(a), mac(a), 5),
    ]
    assert wire.put(frames) == len(frames)
    machine.step(2)
    assert receive_all(b) == frames[:4]
    assert a.context.stats()["rx_own_source"] == 3
    assert b.context.stats()["rx_own_source"] == 0
    machine.close()


def test_a_station_of_another_vlan_is_no_duplicate() -> None:
    wire = QueueWire(256)
    machine = Machine(wire=wire)
    five = machine.attach("five", vlan=5)
    assert wire.put([frame(BROADCAST, mac(five), vid, tag=vlan_tag(vid)) for vid in (5, 7)]) == 2
    machine.step(2)
    assert five.context.stats()["rx_own_source"] == 1
    machine.close()


def test_frames_among_guests_are_none_of_those() -> None:
    machine = Machine()
    a, b = machine.attach("a"), machine.attach("b")
    a.send([frame(BROADCAST, mac(a)), frame(mac(b), mac(a)), frame(mac(a), mac(a))])
    machine.step(2)
    assert [driver.context.stats()["rx_own_source"] for driver in (a, b)] == [0, 0]
    machine.close()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "cdna.lab"]


def test_each_address_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    duplicates = Duplicates(live=True)
    macs = {"a": "02:00:00:00:00:0a", "b": "02:00:00:00:00:0b"}
    for a, b in ((0, 0), (1, 0), (900, 0), (901, 7), (902, 7)):
        duplicates.look({"a": {"rx_own_source": a}, "b": {"rx_own_source": b}}, macs)
    said = warnings(caplog)
    assert [line.split(" comes ")[0] for line in said] == [
        f"MAC address {macs[guest]} of guest {guest}" for guest in ("a", "b")
    ]
    # The guest moves on to another address, which is nobody else's so far.
    duplicates.look({"a": {"rx_own_source": 902}}, {"a": "02:00:00:00:00:0c"})
    assert len(warnings(caplog)) == 2


@pytest.mark.parametrize("wire", ["null", "loopback", "pcap:old.pcap"])
def test_frames_of_a_file_or_a_loopback_may_be_our_own(wire: str, caplog: pytest.LogCaptureFixture) -> None:
    duplicates = Duplicates(named_wire(wire)[0].live)
    duplicates.look({"a": {"rx_own_source": 5}}, {"a": "02:00:00:00:00:0a"})
    assert not warnings(caplog)


def test_a_guest_that_changes_its_address_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    duplicates = Duplicates(live=True)
    for i in range(1, 1000):
        duplicates.look({"a": {"rx_own_source": i}}, {"a": f"02:00:00:00:{i >> 8:02x}:{i & 255:02x}"})
    assert 1 < len(warnings(caplog)) <= 256
