"""The corpus through every path and wire: byte for byte the same, or dropped for a reason."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import cdna
from cdna.abi import Limits
from cdna.base.units import PROTECTIONS
from cdna.nic.capture import read_capture
from cdna.nic.loopback_wire import LoopbackWire
from cdna.nic.pcap_wire import PcapWire
from cdna.nic.queue_wire import QueueWire
from tests.captures.corpus import ALICE, BOB, FILE
from tests.captures.replay import (
    ELSEWHERE,
    FILTERED,
    FRAMES,
    HALF_TAGS,
    INVALID,
    MARK,
    SPOOFED,
    TOO_LONG_WITH_A_TAG,
    VLANS,
    Counters,
    Vlan,
    admits,
    as_received,
    check,
    from_a_wire,
    on_the_wire,
    sending_drop,
    to_a_wire,
    vlan_of,
)

# --- from guest to guest ----------------------------------------------------------------------------------


class Ends:
    """Alice and Bob on one NIC, and how the one sends and the other receives."""

    def __init__(self, machine: cdna.Machine, alice: Any, bob: Any) -> None:
        self.machine = machine
        self.send: Callable[[list[bytes]], int] = alice.send
        self.recv: Callable[[], list[bytes]] = bob.recv
        self.counters = Counters(machine, alice.context, bob.context)

    def move(self) -> None:
        while self.machine.step(2):
            pass


def between_guests(ends: Ends, sender: Vlan, receiver: Vlan) -> None:
    for name, frame in FRAMES.items():
        why = sending_drop(name, sender)
        if why is None and not admits(receiver, vlan_of(name, sender)):
            why = ELSEWHERE
        assert ends.send([frame]) == 1
        ends.move()
        check(name, ends.recv(), ends.counters.new(), as_received(name, frame, sender, receiver), why)


@contextlib.contextmanager
def two_guests(alice: dict[str, Any], bob: dict[str, Any]) -> Iterator[Ends]:
    machine = cdna.Machine(16 << 20, contexts=4)
    yield Ends(
        machine,
        machine.attach("alice", mac=ALICE, **alice),
        machine.attach("bob", mac=BOB, all_multicast=True, **bob),
    )
    machine.close()


@pytest.mark.parametrize("buffer_size", [320, 2048, 9088])
@pytest.mark.parametrize("protection", PROTECTIONS)
def test_between_guests_in_every_protection_mode(protection, buffer_size):
    settings = {"protection": protection, "buffer_size": buffer_size, "tx_ring": 64, "rx_ring": 64}
    with two_guests(settings, settings) as ends:
        between_guests(ends, 0, 0)


@pytest.mark.parametrize("receiver", VLANS)
@pytest.mark.parametrize("sender", VLANS)
def test_between_guests_of_every_vlan_mode(sender, receiver):
    with two_guests({"vlan": sender}, {"vlan": receiver}) as ends:
        between_guests(ends, sender, receiver)


@pytest.mark.parametrize("receiver", ["driver", "remote", "scapy", "remote scapy"])
@pytest.mark.parametrize("sender", ["driver", "remote", "scapy", "remote scapy"])
def test_between_guests_with_every_driver(sender, receiver, tmp_path):
    machine = cdna.Machine(16 << 20, contexts=4)
    machine.serve(tmp_path / "vmm", macs=[ALICE, BOB])

    def driver(kind: str, name: str, **settings: Any) -> Any:
        if "remote" in kind:
            return cdna.RemoteDriver(tmp_path / "vmm", name=name, **settings)
        return machine.attach(name, **settings)

    alice, bob = driver(sender, "alice", mac=ALICE), driver(receiver, "bob", mac=BOB, all_multicast=True)
    ends = Ends(machine, alice, bob)
    with contextlib.ExitStack() as sockets:
        if "scapy" in sender:
            talker = sockets.enter_context(cdna.ScapySocket(alice))
            ends.send = lambda frames: int(talker.send(frames[0]) == len(frames[0]))
        if "scapy" in receiver:
            listener = sockets.enter_context(cdna.ScapySocket(bob))
            ends.recv = lambda: [bytes(p) for p in iter(listener.recv, None)]
        between_guests(ends, 0, 0)
    for end in (alice, bob):
        if isinstance(end, cdna.RemoteDriver):
            end.close()
    machine.close()


@pytest.mark.parametrize(("alice", "bob"), [(True, False), (False, True), (True, True)])
def test_between_guests_whose_frames_stand_behind_a_virtio_net_header(alice, bob):
    """A header that asks for nothing changes nothing; what the other one gets behind its own is the frame."""
    with two_guests({"vnet_header": alice}, {"vnet_header": bob}) as ends:
        send, recv = ends.send, ends.recv
        if alice:
            ends.send = lambda frames: send([bytes(Limits.VNET_HEADER) + frame for frame in frames])
        if bob:
            ends.recv = lambda: [frame[Limits.VNET_HEADER :] for frame in recv()]
        between_guests(ends, 0, 0)


def test_between_guests_of_a_nic_that_runs():
    with cdna.Machine(16 << 20, contexts=4) as machine:
        alice, bob = machine.attach("alice", mac=ALICE), machine.attach("bob", mac=BOB, all_multicast=True)
        counters = Counters(machine, alice.context, bob.context)
        for name, frame in FRAMES.items():
            assert alice.send([frame, MARK]) == 2
            got: list[bytes] = []
            while got[-1:] != [MARK]:
                assert bob.wait(20), name
                got += bob.recv()
            check(name, got[:-1], counters.new(), frame, sending_drop(name, 0))


@contextlib.contextmanager
def spoofing() -> Iterator[Ends]:
    machine = cdna.Machine(16 << 20, contexts=4)
    mallory = machine.attach("mallory", vlan="trunk")
    bob = machine.attach("bob", mac=BOB, vlan="trunk", all_multicast=True)
    yield Ends(machine, mallory, bob)
    machine.close()


def test_a_frame_with_another_source_is_spoofed_whatever_it_is():
    with spoofing() as ends:
        for name, frame in FRAMES.items():
            assert ends.send([frame]) == 1
            ends.move()
            check(name, ends.recv(), ends.counters.new(), None, SPOOFED)


# --- wires of this process --------------------------------------------------------------------------------


@pytest.mark.parametrize("vlan", VLANS)
def test_to_and_from_a_queue(vlan):
    with QueueWire() as wire:
        machine = cdna.Machine(16 << 20, wire=wire)
        to_a_wire(machine, vlan, wire.get)
        machine.close()
    with QueueWire() as wire:
        machine = cdna.Machine(16 << 20, wire=wire)
        from_a_wire(machine, vlan, lambda frame: wire.put([frame]))
        machine.close()


@pytest.mark.parametrize("vlan", VLANS)
def test_around_the_loopback(vlan):
    """One guest, which gets back what it sends because it is promiscuous."""
    machine = cdna.Machine(16 << 20, wire=LoopbackWire())
    alice = machine.attach("alice", mac=ALICE, vlan=vlan, promiscuous=True)
    counters = Counters(machine, alice.context)
    for name, frame in FRAMES.items():
        why = sending_drop(name, vlan)
        if name == TOO_LONG_WITH_A_TAG and vlan == 7:
            why = INVALID  # on the way back
        assert alice.send([frame]) == 1
        while machine.step(2):
            pass
        check(name, alice.recv(), counters.new(), as_received(name, frame, vlan, vlan), why)
    machine.close()


@pytest.mark.parametrize("suffix", ["pcap", "pcapng"])
@pytest.mark.parametrize("vlan", VLANS)
def test_into_a_capture_file(vlan, suffix, tmp_path):
    path = tmp_path / f"sent.{suffix}"
    machine = cdna.Machine(16 << 20, wire=PcapWire(write=path))
    alice = machine.attach("alice", mac=ALICE, vlan=vlan, tx_ring=256)
    counters = Counters(machine, alice.context)
    frames = {name: frame for name, frame in FRAMES.items() if vlan != 7 or name != TOO_LONG_WITH_A_TAG}
    for frame in frames.values():
        assert alice.send([frame]) == 1
        while machine.step(2) or alice.tx_pending:
            pass
    drops = counters.new()
    machine.close()
    why = {name: sending_drop(name, vlan) for name in frames}
    sent = [on_the_wire(name, frame, vlan) for name, frame in frames.items() if why[name] is None]
    assert [f.data for f in read_capture(path)] == sent
    assert drops == Counter(filter(None, why.values()))


@pytest.mark.parametrize("vlan", VLANS)
def test_out_of_a_capture_file(vlan):
    machine = cdna.Machine(16 << 20, wire=PcapWire(FILE))
    bob = machine.attach("bob", mac=BOB, vlan=vlan, all_multicast=True, rx_ring=512)
    counters = Counters(machine, bob.context)
    got: list[bytes] = []
    while machine.step():
        got += bob.recv()
    got += bob.recv()
    wanted = {
        name: frame
        for name, frame in FRAMES.items()
        if admits(vlan, vlan_of(name, 0)) and name not in HALF_TAGS
    }
    assert got == [as_received(name, frame, 0, vlan) for name, frame in wanted.items()]
    dropped = {FILTERED: len(FRAMES) - len(wanted) - len(HALF_TAGS), INVALID: len(HALF_TAGS)}
    assert Counter(counters.new()) == Counter({why: n for why, n in dropped.items() if n})
    machine.close()
