"""Addresses behind a guest that may send foreign ones: a bridge or a macvlan in it, a changed MAC address."""

from __future__ import annotations

import pytest

from cdna.base.units import parse_mac
from cdna.machine import Machine
from cdna.nic.queue_wire import QueueWire
from tests.support.frames import BROADCAST, OUTSIDE, frame, vlan_tag
from tests.support.lan import Lan

NESTED = bytes.fromhex("02aa00000001")
LEARNED = 64  # addresses of one context, at most
OFF = {"anti_spoof": False}


def nested(number: int) -> bytes:
    return bytes.fromhex("02bb0000") + number.to_bytes(2, "big")


def learned(lan: Lan, name: str) -> list[bytes]:
    return [mac for mac, _ in lan.machine.nic.learned(lan[name].context.index)]


@pytest.fixture
def lan() -> Lan:
    return Lan(a={}, router=OFF, rival=OFF)


def teach(lan: Lan, name: str, *macs: bytes, tag: bytes = b"") -> None:
    for mac in macs:
        lan.send(frame(BROADCAST, mac, tag=tag), name)


def test_a_reply_to_an_address_behind_a_guest_reaches_the_guest(lan):
    teach(lan, "router", NESTED)
    for source in ("a", "wire"):
        data = frame(NESTED, lan.addr(source))
        assert lan.send(data, source) == {"router": [data]}
    assert learned(lan, "router") == [NESTED]
    assert lan["a"].context.stats()["tx_local"] == 1


def test_a_guest_receives_by_both_addresses_when_it_has_changed_its_own(lan):
    """A VM whose driver was given another address, and whose device keeps the first."""
    teach(lan, "router", NESTED)
    for to in (NESTED, lan.addr("router")):
        data = frame(to, lan.addr("a"))
        assert lan.send(data, "a") == {"router": [data]}


def test_nothing_is_learned_where_sources_are_checked(lan):
    teach(lan, "a", NESTED)
    assert learned(lan, "a") == []
    assert lan.stats("a") == {"tx_drop_spoof": 1}
    data = frame(NESTED, lan.addr("rival"))
    assert lan.send(data, "rival") == {"wire": [data]}


def test_checking_sources_again_forgets_what_was_learned(lan):
    teach(lan, "router", NESTED)
    lan["router"].context.set(anti_spoof=True)
    assert learned(lan, "router") == []
    data = frame(NESTED, lan.addr("a"))
    assert lan.send(data, "a") == {"wire": [data]}


def test_a_contexts_own_address_is_never_learned(lan):
    teach(lan, "router", lan.addr("a"), lan.addr("router"))
    assert learned(lan, "router") == []
    assert lan["router"].context.stats()["tx_unlearned"] == 1
    data = frame(lan.addr("a"), OUTSIDE)
    assert lan.send(data, "wire") == {"a": [data]}


def test_an_address_of_a_context_in_another_vlan_is_learned():
    """An address in VLAN 5 keeps nobody from having it in VLAN 7, also not where it is taken later."""
    lan = Lan(five={"vlan": 5}, router={"vlan": 7, **OFF}, near={"vlan": 7}, late={"vlan": 5})
    teach(lan, "router", lan.addr("five"), NESTED)
    lan["late"].context.set(mac=NESTED.hex(":"))
    assert learned(lan, "router") == [lan.addr("five"), NESTED]
    for to in (lan.addr("five"), NESTED):
        data = frame(to, lan.addr("near"))
        assert lan.send(data, "near") == {"router": [data]}
    lan["late"].context.set(vlan=7)
    assert learned(lan, "router") == [lan.addr("five")]
    data = frame(NESTED, lan.addr("near"))
    assert lan.send(data, "near") == {"late": [data]}


def test_an_address_that_becomes_a_contexts_own_is_forgotten(lan):
    teach(lan, "router", NESTED)
    lan["a"].context.set(mac=NESTED.hex(":"))
    assert learned(lan, "router") == []
    data = frame(NESTED, OUTSIDE)
    assert lan.send(data, "wire") == {"a": [data]}


def test_no_group_and_no_zero_is_learned(lan):
    teach(lan, "router", bytes.fromhex("01005e000001"), bytes(6))
    assert learned(lan, "router") == []


def test_a_frame_is_not_sent_back_to_where_its_destination_is(lan):
    """A bridge in the guest floods what it does not know; back, it would learn the sender on this side."""
    teach(lan, "router", NESTED)
    assert lan.send(frame(NESTED, nested(1)), "router") == {}
    assert lan.stats("router") == {"tx_drop_filter": 1}


def test_another_guest_does_not_take_an_address_that_is_in_use(lan):
    teach(lan, "router", NESTED)
    teach(lan, "rival", NESTED)
    assert (learned(lan, "router"), learned(lan, "rival")) == ([NESTED], [])
    assert lan["rival"].context.stats()["tx_unlearned"] == 1
    lan.machine.nic.set_learning(age=300, hold=0)  # as after that time of silence
    teach(lan, "rival", NESTED)
    assert (learned(lan, "router"), learned(lan, "rival")) == ([], [NESTED])


def test_an_address_that_the_wire_shows_is_the_wires(lan):
    """A hostile guest that sends with the gateway's address gets its frames until the gateway's next one."""
    gateway = OUTSIDE
    teach(lan, "router", gateway)
    lan.send(frame(BROADCAST, gateway), "wire")
    assert learned(lan, "router") == []
    teach(lan, "router", gateway)
    teach(lan, "rival", gateway)
    data = frame(gateway, lan.addr("a"))
    assert lan.send(data, "a") == {"wire": [data]}
    lan.machine.nic.set_learning(age=300, hold=0)
    teach(lan, "rival", gateway)  # it has moved there
    assert lan.send(data, "a") == {"rival": [data]}


def test_what_is_silent_for_long_is_forgotten(lan):
    teach(lan, "router", NESTED)
    lan.machine.nic.set_learning(age=0, hold=0)
    assert learned(lan, "router") == []
    data = frame(NESTED, lan.addr("a"))
    assert lan.send(data, "a") == {"wire": [data]}


def test_a_flood_of_addresses_is_bounded_and_costs_the_neighbours_nothing(lan):
    teach(lan, "rival", NESTED)
    teach(lan, "router", *map(nested, range(3 * LEARNED)))
    assert learned(lan, "router") == [nested(i) for i in range(LEARNED)]
    assert lan["router"].context.stats()["tx_unlearned"] == 2 * LEARNED
    teach(lan, "rival", nested(10_000))
    assert learned(lan, "rival") == [NESTED, nested(10_000)]
    for mac, behind in ((NESTED, "rival"), (nested(0), "router"), (nested(LEARNED - 1), "router")):
        data = frame(mac, lan.addr("a"))
        assert lan.send(data, "a") == {behind: [data]}


def test_an_address_too_old_gives_its_place_to_a_new_one(lan):
    teach(lan, "router", *map(nested, range(LEARNED)))
    lan.machine.nic.set_learning(age=0, hold=0)
    teach(lan, "router", nested(LEARNED))
    lan.machine.nic.set_learning(age=300, hold=10)
    assert nested(LEARNED) in learned(lan, "router")
    assert len(learned(lan, "router")) == LEARNED
    assert lan["router"].context.stats()["tx_unlearned"] == 0


def test_a_frame_that_waits_for_the_wire_is_counted_once():
    wire = QueueWire(1)
    machine = Machine(4 << 20, wire=wire, contexts=4)
    a, router = machine.attach("a"), machine.attach("router", anti_spoof=False)
    own = parse_mac(a.context.mac)
    sent = [frame(OUTSIDE, own, i) for i in range(2)]
    assert router.send(sent) == 2
    machine.step(20)
    assert wire.get() == sent[:1]
    machine.step(20)
    assert wire.get() == sent[1:]
    assert router.context.stats()["tx_unlearned"] == 2
    machine.close()


def test_a_guest_that_goes_leaves_nothing(lan):
    teach(lan, "router", *map(nested, range(LEARNED)))
    index = lan["router"].context.index
    lan.machine.vmm.destroy_guest(lan["router"].context.guest)
    del lan.guests["router"]
    assert lan.machine.nic.learned(index) == []
    data = frame(nested(0), lan.addr("a"))
    assert lan.send(data, "a") == {"wire": [data]}
    teach(lan, "rival", nested(0))
    assert learned(lan, "rival") == [nested(0)]


def test_addresses_are_learned_by_vlan():
    lan = Lan(five={"vlan": 5}, six={"vlan": 6}, trunk={"vlan": "trunk", **OFF}, access={"vlan": 6, **OFF})
    teach(lan, "trunk", NESTED, tag=vlan_tag(5))
    teach(lan, "access", NESTED)
    assert lan.machine.nic.learned(lan["trunk"].context.index) == [(NESTED, 5)]
    assert lan.machine.nic.learned(lan["access"].context.index) == [(NESTED, 6)]
    data = frame(NESTED, lan.addr("five"))
    assert lan.send(data, "five") == {"trunk": [data[:12] + vlan_tag(5) + data[12:]]}
    data = frame(NESTED, lan.addr("six"))
    assert lan.send(data, "six") == {"access": [data]}
    # A provider's VLAN 6 is another one.
    teach(lan, "trunk", NESTED, tag=b"\x88\xa8\x00\x06")
    assert lan.send(data, "six") == {"access": [data]}
    outer = data[:12] + b"\x88\xa8\x00\x06" + data[12:]
    assert lan.send(outer, "wire") == {"trunk": [outer]}
    lan["access"].context.set(vlan=7)
    assert lan.machine.nic.learned(lan["access"].context.index) == []
