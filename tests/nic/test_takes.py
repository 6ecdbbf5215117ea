"""Every kind of work left to do, to everybody who takes it, or does not: the frame arrives whole, or done."""

import itertools
import struct
from dataclasses import replace

import numpy as np
import pytest

import cdna
from cdna.abi import VNET_HEADER_DTYPE, Takes, VnetFlag
from cdna.nic.loopback_wire import LoopbackWire
from tests.support.frames import BROADCAST, OUTSIDE, mac, receive_all, vlan_tag
from tests.support.frames import frame as data_frame
from tests.support.large import (
    KINDS,
    exchanged,
    finished,
    large,
    vnet_header,
    without_identification,
)

HEADER = VNET_HEADER_DTYPE.itemsize
ALL = sum(Takes)
# Everything, everything but one, nothing, and what namespace guests take in any case.
MASKS = [ALL, 0, 15, Takes.TAKES_CSUM, *(ALL - bit for bit in Takes if bit != Takes.TAKES_CSUM)]
PAIRS = list(itertools.product(KINDS, MASKS))


@pytest.fixture
def lab():
    machines = []

    def machine(offloads=0):
        machines.append(cdna.Machine(memory=16 << 20, wire=LoopbackWire(offloads=offloads)))
        return machines[-1]

    yield machine
    for made in machines:
        made.close()


def guest(machine, name, takes=None, **settings):
    """A guest that takes this of others; None: it has no virtio-net header at all."""
    vnet = takes is not None
    settings = {"tx_ring": 16, "rx_ring": 64, "buffer_size": 16384, **settings}
    return machine.attach(name, memory=4 << 20, vnet_header=vnet, takes=takes, **settings)


def arrived(driver):
    """(header or None, frame) of all that a guest has received, IPv6 fragments without identification."""
    frames = receive_all(driver)
    if not driver.vnet_header:
        return [(None, without_identification(data)) for data in frames]
    return [
        (np.frombuffer(data[:HEADER], VNET_HEADER_DTYPE)[0], without_identification(data[HEADER:]))
        for data in frames
    ]


def check(received, name, frame, offload, takes):
    """What arrived is what it has to be for somebody who takes this; None: a guest without header."""
    kind = KINDS[name]
    if takes is not None and not kind.needs & ~takes:
        ((header, data),) = received
        assert data == frame
        assert (header["flags"], header["gso_type"]) == (VnetFlag.VNET_F_NEEDS_CSUM, kind.gso)
        assert header["gso_size"] == offload.mss
        assert (header["csum_start"], header["csum_offset"]) == (offload.csum_start, offload.csum_offset)
        return
    expected = finished(frame, offload)
    assert [data for _, data in received] == expected
    if takes is not None:
        # Fragments are summed up by whoever puts them together; the sender of no more is the NIC's word.
        known = takes & Takes.TAKES_CSUM and not name.startswith("ufo")
        assert {int(header["flags"]) for header, _ in received} == {2 if known else 0}
        assert {int(header["gso_type"]) for header, _ in received} == {0}


@pytest.mark.parametrize(("name", "takes"), [*PAIRS, *((name, None) for name in KINDS)])
def test_guest_to_guest(lab, name, takes):
    machine = lab()
    alice, bob = guest(machine, "alice", 0), guest(machine, "bob", takes)
    frame, offload = large(KINDS[name], mac(bob), mac(alice))
    assert alice.send([vnet_header(KINDS[name], offload) + frame]) == 1
    machine.step(5)
    check(arrived(bob), name, frame, offload, takes)
    assert alice.context.state.name == "CONTEXT_RUNNING"


def route(hops, left):
    """Hop-by-hop options and a segment routing header (RFC 8754, 2)."""
    addresses = b"".join(bytes([0x20, 1, 0x0D, 0xB8, *bytes(11), hop]) for hop in range(hops))
    return b"\x2b\0\x01\x04\0\0\0\0" + struct.pack("!8B", 0, 2 * hops, 4, left, hops - 1, 0, 0, 0) + addresses


CHAINS = {  # extension headers of a large frame
    "the end of a route": route(2, 0),
    "on a route": route(2, 1),
    "a route that is longer than what is copied first": route(20, 7),
    "the longest route": route(127, 126),
    "options": b"\x3c\0\x01\x04\0\0\0\0" + b"\0\x03\x01\x1c" + bytes(28),
}


@pytest.mark.parametrize("takes", [ALL, 0, None])
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("name", [name for name in KINDS if name.endswith("6")])
def test_extension_headers_are_none_of_a_receivers_business(lab, name, chain, takes):
    """Whole, or cut: the sum of a pseudo header with an address that is nowhere in the packet is right."""
    machine = lab()
    kind = replace(KINDS[name], length=7000) if KINDS[name].offload is not None else KINDS[name]
    alice, bob = guest(machine, "alice", 0), guest(machine, "bob", takes)
    frame, offload = large(kind, mac(bob), mac(alice), chain=chain)
    at = offload.csum_start + offload.csum_offset
    (partial,) = struct.unpack_from("!H", frame, at)
    frame = frame[:at] + struct.pack("!H", exchanged(partial, 0, 0x1234)) + frame[at + 2 :]
    assert alice.send([vnet_header(kind, offload) + frame]) == 1
    machine.step(5)
    check(arrived(bob), name, frame, offload, takes)
    assert alice.context.state.name == "CONTEXT_RUNNING"


@pytest.mark.parametrize("takes", [ALL, 0, None])
@pytest.mark.parametrize("name", KINDS)
def test_any_number_of_tags(lab, name, takes):
    machine = lab()
    alice = guest(machine, "alice", 0, vlan="trunk")
    bob = guest(machine, "bob", takes, vlan="trunk")
    frame, offload = large(KINDS[name], mac(bob), mac(alice), tag=b"".join(map(vlan_tag, range(5, 9))))
    alice.send([vnet_header(KINDS[name], offload) + frame])
    machine.step(5)
    check(arrived(bob), name, frame, offload, takes)


@pytest.mark.parametrize("takes", [ALL, 0, None])
@pytest.mark.parametrize("name", KINDS)
def test_an_offload_descriptor_asks_for_the_same(lab, name, takes):
    machine = lab()
    alice, bob = guest(machine, "alice"), guest(machine, "bob", takes)
    frame, offload = large(KINDS[name], mac(bob), mac(alice))
    assert alice.send([frame], offload=offload) == 1
    machine.step(5)
    check(arrived(bob), name, frame, offload, takes)


def on_wire(machine, rounds=5):
    """Pairs of a frame that the NIC has sent and its offload.

    A round of the NIC receives a burst of 32 that were there before; what it sends then is behind them.
    """
    pairs = []
    for _ in range(rounds):
        machine.wire.transmit([data_frame(OUTSIDE, OUTSIDE)] * 32)
        machine.step(1)
        pairs += machine.wire.receive_offload(1024)
    return [(without_identification(data), offload) for data, offload in pairs]


@pytest.mark.parametrize(("name", "takes"), PAIRS)
def test_guest_to_wire(lab, name, takes):
    machine = lab(takes)
    alice = guest(machine, "alice", 0)
    frame, offload = large(KINDS[name], OUTSIDE, mac(alice))
    alice.send([vnet_header(KINDS[name], offload) + frame])
    if not KINDS[name].needs & ~takes:
        assert on_wire(machine) == [(frame, offload)]
    else:
        assert on_wire(machine) == [(data, None) for data in finished(frame, offload)]


@pytest.mark.parametrize("name", KINDS)
def test_guest_in_a_vlan_to_wire(lab, name):
    """The tag goes in front of the work, and the work moves."""
    machine = lab(ALL)
    alice = guest(machine, "alice", 0, vlan=5)
    frame, offload = large(KINDS[name], OUTSIDE, mac(alice))
    tagged, moved = large(KINDS[name], OUTSIDE, mac(alice), vlan_tag(5))
    alice.send([vnet_header(KINDS[name], offload) + frame])
    assert on_wire(machine) == [(tagged, moved)]


@pytest.mark.parametrize(("name", "takes"), [*PAIRS, *((name, None) for name in KINDS)])
def test_wire_to_guest(lab, name, takes):
    machine = lab(ALL)
    bob = guest(machine, "bob", takes)
    frame, offload = large(KINDS[name], mac(bob), OUTSIDE)
    assert machine.wire.transmit_offload([(frame, offload)]) == 1
    machine.step(5)
    check(arrived(bob), name, frame, offload, takes)


@pytest.mark.parametrize("name", KINDS)
def test_to_several_at_once(lab, name):
    """A broadcast is done once, for all: whoever could have taken it so gets it done, too."""
    machine = lab(ALL)
    alice = guest(machine, "alice", ALL)
    others = [guest(machine, "bob", ALL), guest(machine, "carol", 0), guest(machine, "dave")]
    frame, offload = large(KINDS[name], BROADCAST, mac(alice))
    alice.send([vnet_header(KINDS[name], offload) + frame])
    assert on_wire(machine) == [(data, None) for data in finished(frame, offload)]
    for other in others:
        assert [data for _, data in arrived(other)] == finished(frame, offload)


@pytest.mark.parametrize("name", KINDS)
def test_under_a_promiscuous_guest(lab, name):
    machine = lab(ALL)
    alice, bob = guest(machine, "alice", ALL), guest(machine, "bob", ALL)
    eve = guest(machine, "eve", ALL, promiscuous=True)
    frame, offload = large(KINDS[name], mac(bob), mac(alice))
    alice.send([vnet_header(KINDS[name], offload) + frame])
    machine.step(5)
    for other in (bob, eve):
        assert [data for _, data in arrived(other)] == finished(frame, offload)


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_where_a_tag_comes_or_goes(lab, name, tagged):
    machine = lab()
    alice = guest(machine, "alice", ALL, vlan="trunk" if tagged else 5)
    bob = guest(machine, "bob", ALL, vlan=5 if tagged else "trunk")
    tags = [vlan_tag(5), b""] if tagged else [b"", vlan_tag(5)]
    frame, offload = large(KINDS[name], mac(bob), mac(alice), tags[0])
    alice.send([vnet_header(KINDS[name], offload) + frame])
    machine.step(5)
    assert [data for _, data in arrived(bob)] == finished(*large(KINDS[name], mac(bob), mac(alice), tags[1]))


@pytest.mark.parametrize(("mss", "whole"), [(80, True), (78, True), (77, False)])
def test_more_datagrams_than_a_stack_takes_in_one_frame_are_cut(lab, mss, whole):
    """Linux takes 64: 4992 bytes of payload are 64 datagrams of 78 bytes."""
    machine = lab()
    alice, bob = guest(machine, "alice", 0), guest(machine, "bob", ALL, rx_ring=128)
    kind = KINDS["uso4"].__class__(**{**KINDS["uso4"].__dict__, "mss": mss, "length": 64 * 78})
    frame, offload = large(kind, mac(bob), mac(alice))
    alice.send([vnet_header(kind, offload) + frame])
    machine.step(5)
    expected = [frame] if whole else finished(frame, offload)
    assert [data for _, data in arrived(bob)] == expected


def test_takes_can_change_while_the_guest_runs(lab):
    machine = lab()
    alice, bob = guest(machine, "alice", 0), guest(machine, "bob", 0)
    for takes in (0, ALL, 15, Takes.TAKES_CSUM):
        bob.context.set(takes=takes)
        for name, kind in KINDS.items():
            frame, offload = large(kind, mac(bob), mac(alice))
            alice.send([vnet_header(kind, offload) + frame])
            machine.step(5)
            check(arrived(bob), name, frame, offload, takes)


@pytest.mark.parametrize("offloads", [0, ALL])
@pytest.mark.parametrize("name", KINDS)
def test_work_left_to_do_lets_no_tag_of_an_access_context_pass(lab, name, offloads):
    machine = lab(offloads)
    for vlan in (0, 5):
        alice = guest(machine, f"alice {vlan}", 0, vlan=vlan)
        frame, offload = large(KINDS[name], OUTSIDE, mac(alice), tag=vlan_tag(100))
        alice.send([vnet_header(KINDS[name], offload) + frame])
        assert on_wire(machine) == []
        assert alice.context.stats()["tx_drop_vlan"] > 0


@pytest.mark.parametrize("offloads", [0, ALL])
@pytest.mark.parametrize("name", KINDS)
def test_a_priority_tag_says_no_vlan_whatever_is_left_to_do(lab, name, offloads):
    machine = lab(offloads)
    alice = guest(machine, "alice", 0, vlan=5)
    frame, offload = large(KINDS[name], OUTSIDE, mac(alice), tag=b"\x81\0\xa0\0")
    alice.send([vnet_header(KINDS[name], offload) + frame])
    assert {data[12:16] for data, _ in on_wire(machine)} == {b"\x81\0\xa0\5"}
    assert alice.context.stats()["tx_drop_vlan"] == 0


@pytest.mark.parametrize(
    ("vnet", "takes", "match"),
    [
        (False, Takes.TAKES_CSUM, "vnet_header=True"),
        (True, Takes.TAKES_TSO4, "TAKES_CSUM"),
        (True, 128, "give 0 to 127"),
        (True, -1, "give 0 to 127"),
        (True, "csum", "whole number"),
    ],
)
def test_takes_that_cannot_be(lab, vnet, takes, match):
    machine = lab()
    with pytest.raises(cdna.ConfigError, match=match):
        machine.attach("alice", vnet_header=vnet, takes=takes)
    alice = machine.attach("alice", vnet_header=vnet)  # nothing is left behind
    with pytest.raises(cdna.ConfigError, match=match):
        alice.context.set(takes=takes)


def test_a_wire_refuses_what_it_does_not_take():
    with LoopbackWire(offloads=15) as wire:
        for name, kind in KINDS.items():
            pair = large(kind, OUTSIDE, OUTSIDE)
            if name.startswith("u"):
                with pytest.raises(cdna.ConfigError, match="loopback does not take"):
                    wire.transmit_offload([pair])
            else:
                assert wire.transmit_offload([pair]) == 1
                assert wire.receive_offload() == [pair]


def test_a_plain_receive_finishes_every_kind():
    with LoopbackWire(offloads=ALL) as wire:
        for kind in KINDS.values():
            frame, offload = large(kind, OUTSIDE, OUTSIDE)
            wire.transmit_offload([(frame, offload)])
            assert list(map(without_identification, wire.receive())) == finished(frame, offload)


def test_a_datagram_without_checksum_stays_so(lab):
    """Of a socket with SO_NO_CHECK: fragments, or whole, and no word of a checksum."""
    for takes in (ALL, 0):
        machine = lab()
        alice, bob = guest(machine, "alice", 0), guest(machine, "bob", takes)
        kind = KINDS["ufo4"]
        frame, offload = large(kind, mac(bob), mac(alice))
        at = offload.csum_start + 6
        frame = frame[:at] + bytes(2) + frame[at + 2 :]
        alice.send([struct.pack("<BBHHHHH", 0, kind.gso, 42, kind.mss, 0, 0, 0) + frame])
        machine.step(5)
        received = arrived(bob)
        if takes:
            ((header, data),) = received
            assert data == frame
            assert (header["flags"], header["gso_type"], header["gso_size"]) == (0, kind.gso, kind.mss)
        else:
            assert [data for _, data in received] == finished(frame, offload._replace(csum_offset=0))
            assert {int(header["flags"]) for header, _ in received} == {0}
