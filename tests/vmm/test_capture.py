"""`Machine.capture`: what the contexts sent, received and lost, in a file, named after their guests."""

import resource

import pytest

from cdna.errors import ConfigError, ResourceError
from cdna.machine import Machine
from cdna.nic.queue_wire import QueueWire
from tests.support.frames import BROADCAST, OUTSIDE, Neighbours, frame, mac, receive_all, vlan_tag
from tests.support.open_files import open_files
from tests.support.pcapng import read_pcapng

BEHIND = bytes.fromhex("02beeeeeee01")  # of a station behind a guest


@pytest.fixture
def machine():
    machine = Machine(wire="loopback")
    yield machine
    machine.close()


def outcomes(path, name):
    """(frame, comment without its explanation) of each packet of an interface."""
    return [(packet.data, packet.comment.split(" (")[0]) for packet in read_pcapng(path).of(name)]


def test_a_frame_is_seen_where_it_is_sent_and_then_where_it_arrives(machine, tmp_path):
    alice, bob = machine.attach("alice"), machine.attach("bob")
    frames = [frame(mac(bob), mac(alice), i, 60 + i) for i in range(20)]
    with machine.capture(tmp_path / "x.pcapng"):
        alice.send(frames)
        machine.step(3)
    capture = read_pcapng(tmp_path / "x.pcapng")
    assert [(p.interface, p.comment, p.outbound, p.data) for p in capture.packets] == [
        seen
        for data in frames
        for seen in (("alice.0", "sent", True, data), ("bob.1", "received", False, data))
    ]
    assert [(i.name, i.mac, i.received, i.dropped) for i in capture.interfaces] == [
        ("alice.0", mac(alice), 20, 0), ("bob.1", mac(bob), 20, 0)
    ]  # fmt: skip
    stamps = [packet.timestamp_ns for packet in capture.packets]
    assert stamps == sorted(stamps)


def test_why_a_frame_was_dropped(tmp_path):
    wire = QueueWire()
    machine = Machine(wire=wire)
    alice, bob = machine.attach("alice"), machine.attach("bob", rx_ring=8)
    spoofed = frame(mac(bob), OUTSIDE, 1)
    tagged = frame(mac(bob), mac(alice), 2, tag=vlan_tag(7))
    outside = frame(OUTSIDE, mac(alice), 3)
    flood = [frame(mac(bob), mac(alice), i) for i in range(10)]
    apart = frame(mac(bob), mac(alice), 20)  # in a VLAN where bob is not: the wire may know better
    behind = frame(OUTSIDE, BEHIND, 21)
    back = frame(BEHIND, mac(alice), 22)
    with machine.capture(tmp_path / "x.pcapng") as capture:
        alice.send([spoofed, tagged, outside])
        machine.step(2)
        wire.link = False
        alice.send([outside])
        machine.step(2)
        wire.link = True
        bob.context.set(vlan=5)
        alice.send([apart])
        machine.step(2)
        bob.context.set(vlan=0)
        alice.context.set(anti_spoof=False)
        alice.send([behind, back])
        machine.step(2)
        alice.send(flood)
        machine.step(3)
    stats = alice.context.stats()
    assert outcomes(tmp_path / "x.pcapng", "alice.0") == [
        (spoofed, "dropped: tx_drop_spoof"),
        (tagged, "dropped: tx_drop_vlan"),
        (outside, "sent"),
        (outside, "dropped: tx_drop_link"),
        (apart, "sent"),
        (behind, "sent"),
        (back, "dropped: tx_drop_filter"),
        *((data, "sent") for data in flood),
    ]
    received = stats["tx_frames"] and bob.context.stats()["rx_frames"]
    assert 0 < received < 10
    assert outcomes(tmp_path / "x.pcapng", "bob.1") == [
        (data, "received" if i < received else "dropped: rx_drop_no_buffer") for i, data in enumerate(flood)
    ]
    assert capture.frames == 17 + 10
    machine.close()


def test_a_frame_longer_than_an_mtu_is_seen_with_that_reason(machine, tmp_path):
    alice, bob = machine.attach("alice"), machine.attach("bob", mtu=1000)
    data = frame(mac(bob), mac(alice), size=1015)
    back = frame(mac(alice), mac(bob), size=1015)
    with machine.capture(tmp_path / "x.pcapng"):
        alice.send([data])
        bob.send([back])
        machine.step(3)
    assert outcomes(tmp_path / "x.pcapng", "bob.1") == [
        (data, "dropped: rx_drop_mtu"),
        (back, "dropped: tx_drop_mtu"),
    ]


def test_a_stopped_context_drops_with_the_reason(machine, tmp_path):
    neighbours = Neighbours(machine)
    mallory = machine.attach("mallory", protection="none")
    machine.nic.rings_view(mallory.context.index)[:16] = 0xFF  # a descriptor of nonsense
    mallory.send([frame(BROADCAST, mac(mallory))])
    machine.nic.rings_view(mallory.context.index)[:16] = 0xFF
    machine.step(2)
    assert mallory.context.state.name == "CONTEXT_FAULTED"
    data = frame(mac(mallory), mac(neighbours.alice))
    with machine.capture(tmp_path / "x.pcapng", "mallory"):
        neighbours.alice.send([data])
        machine.step(2)
    assert outcomes(tmp_path / "x.pcapng", "mallory.2") == [(data, "dropped: rx_drop_stopped")]


def test_the_frame_that_stops_a_context_is_not_said_to_lack_a_buffer(machine, tmp_path):
    neighbours = Neighbours(machine)
    mallory = machine.attach("mallory", protection="none")
    machine.nic.rings_view(mallory.context.index)[machine.nic.max_ring * 16 :][:16] = 0xFF
    data = frame(mac(mallory), mac(neighbours.alice))
    with machine.capture(tmp_path / "x.pcapng", "mallory"):
        neighbours.alice.send([data])
        machine.step(2)
    assert mallory.context.state.name == "CONTEXT_FAULTED"
    assert outcomes(tmp_path / "x.pcapng", "mallory.2") == [(data, "dropped: rx_drop_stopped")]


def test_contexts_are_chosen_by_the_names_of_their_guests(machine, tmp_path):
    neighbours = Neighbours(machine)
    chosen = {
        "all": {"alice.0", "bob.1"},
        "alice": {"alice.0"},
        "bob.1": {"bob.1"},
        "0": {"alice.0"},
    }
    for name, interfaces in chosen.items():
        with machine.capture(tmp_path / name, name), machine.capture(tmp_path / "list", [name, "bob"]):
            neighbours.check(3)
        assert {p.interface for p in read_pcapng(tmp_path / name).packets} == interfaces
        assert {p.interface for p in read_pcapng(tmp_path / "list").packets} == interfaces | {"bob.1"}


def test_guests_that_come_later(machine, tmp_path):
    neighbours = Neighbours(machine)
    with machine.capture(tmp_path / "all"), machine.capture(tmp_path / "bob", "bob"):
        carol = machine.attach("carol")
        carol.send([frame(mac(neighbours.bob), mac(carol))])
        machine.step(2)
        machine.vmm.destroy_guest(machine.guest("carol"))
        machine.vmm.destroy_guest(machine.guest("bob"))
        dora, bob = machine.attach("dora"), machine.attach("bob")  # on bob's context and on carol's
        dora.send([frame(mac(bob), mac(dora))])
        machine.step(2)
        assert len(receive_all(bob)) == 1
    everybody = read_pcapng(tmp_path / "all")
    assert [i.name for i in everybody.interfaces] == ["alice.0", "bob.1", "carol.2", "dora.1", "bob.2"]
    assert [p.interface for p in everybody.packets] == ["carol.2", "bob.1", "dora.1", "bob.2"]
    assert [p.interface for p in read_pcapng(tmp_path / "bob").packets] == ["bob.1", "bob.2"]


def test_another_address_is_another_interface(machine, tmp_path):
    neighbours = Neighbours(machine)
    with machine.capture(tmp_path / "x", "alice"):
        neighbours.alice.context.set(mac="02:00:00:00:00:99")
        neighbours.check(1)
    assert [(i.name, i.mac.hex(":")) for i in read_pcapng(tmp_path / "x").interfaces] == [
        ("alice.0", "02:cd:0a:00:00:00"), ("alice.0", "02:00:00:00:00:99")
    ]  # fmt: skip


def test_snapshot_length(machine, tmp_path):
    neighbours = Neighbours(machine)
    with machine.capture(tmp_path / "x", snaplen=20):
        neighbours.check(2)
    assert {(len(p.data), p.length) for p in read_pcapng(tmp_path / "x").packets} == {(20, 60)}


def test_nothing_stays_behind(machine, tmp_path):
    """Neither on the NIC nor in the process, also where a capture cannot start."""
    neighbours = Neighbours(machine)
    open_before = open_files()
    for wrong in ("nobody", [], ["alice", 3], 7, "alice.1", "1.5"):
        with pytest.raises(ConfigError, match=r"capture|contexts"):
            machine.capture(tmp_path / "x", wrong)
    with pytest.raises(ConfigError, match="'nobody' to capture: give all, or one of alice, bob"):
        machine.capture(tmp_path / "x", ["alice", "nobody"])
    assert not (tmp_path / "x").exists()
    with pytest.raises(ResourceError, match="No such file or directory"):
        machine.capture(tmp_path / "no" / "x")
    with machine.capture(tmp_path / "x"):
        neighbours.check(1)
    assert open_files() == open_before
    neighbours.check()


def test_a_full_disk_is_told_and_harms_no_traffic(machine, tmp_path):
    neighbours = Neighbours(machine)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    capture = machine.capture(tmp_path / "x")
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        neighbours.check(32)
        with pytest.raises(ResourceError, match=r"ends after \d+ frames: file too large"):
            capture.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(read_pcapng(tmp_path / "x").packets) == capture.frames > 0
    capture.close()
    neighbours.check()


def test_the_machine_ends_first(tmp_path):
    machine = Machine()
    capture = machine.capture(tmp_path / "x")
    machine.attach("alice").send([])
    machine.close()
    capture.close()
    assert [i.name for i in read_pcapng(tmp_path / "x").interfaces] == ["alice.0"]
