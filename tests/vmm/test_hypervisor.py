"""Guests and contexts created, assigned, refused; pages given away."""

from __future__ import annotations

import pytest

from cdna.abi import ContextState
from cdna.errors import CdnaError, ConfigError, ResourceError
from cdna.guests.driver import Driver
from cdna.guests.hostile import EOP, TX, Hostile
from cdna.machine import Machine
from cdna.nic.loopback_wire import LoopbackWire
from cdna.settings import ContextSettings
from tests.support.frames import Neighbours, frame, mac

PAGE = 4096


@pytest.fixture
def machine():
    machine = Machine(2 << 20, wire="loopback", contexts=4)
    yield machine
    machine.close()
    assert not machine.memory.pins().any()
    assert machine.memory.free_pages == machine.memory.pages


def test_a_guest_has_zeroed_pages_of_its_own_and_loses_them(machine):
    guest = machine.vmm.create_guest("a", 3 * PAGE - 5)
    assert (guest.pages, guest.size) == (3, 3 * PAGE)
    assert guest.maddr == guest.first_page * PAGE
    guest.memory[:] = 1
    machine.vmm.destroy_guest(guest)
    assert "a" not in machine.vmm.guests
    again = machine.vmm.create_guest("a", 3 * PAGE)
    assert again.domain != guest.domain
    assert not again.memory.any()


def test_guests_that_cannot_be(machine):
    machine.vmm.create_guest("a", PAGE)
    with pytest.raises(ConfigError, match="guest 'a' exists: give another name"):
        machine.vmm.create_guest("a", PAGE)
    with pytest.raises(ConfigError, match="guest 'b' with 0 bytes: give at least 4096"):
        machine.vmm.create_guest("b", 0)
    with pytest.raises(ConfigError, match=f"machine memory has {2 << 20}"):
        machine.vmm.create_guest("b", 3 << 20)
    with pytest.raises(ResourceError, match="contiguous pages wanted"):
        machine.vmm.create_guest("b", 2 << 20)
    assert set(machine.vmm.guests) == {"a"}


def test_contexts_run_out_and_come_back(machine):
    guest = machine.vmm.create_guest("a", PAGE)
    contexts = [machine.vmm.assign(guest) for _ in range(4)]
    assert [context.index for context in contexts] == [0, 1, 2, 3]
    assert all(context.state == ContextState.CONTEXT_RUNNING for context in contexts)
    with pytest.raises(ResourceError, match="all 4 contexts are taken"):
        machine.vmm.assign(guest)
    machine.vmm.revoke(contexts[2])
    assert guest.contexts == [contexts[0], contexts[1], contexts[3]]
    assert machine.vmm.assign(guest).index == 2


@pytest.mark.parametrize("index", [-1, 4, 1 << 40])
def test_a_context_that_the_nic_has_not(machine, index):
    guest = machine.vmm.create_guest("a", PAGE)
    with pytest.raises(ConfigError, match=f"context {index}: this NIC has contexts 0 to 3"):
        machine.vmm.assign(guest, index=index)


def test_a_context_that_is_taken(machine):
    guest = machine.vmm.create_guest("a", PAGE)
    machine.vmm.assign(guest, index=1)
    with pytest.raises(ConfigError, match="context 1 is assigned to 'a': revoke it first"):
        machine.vmm.assign(guest, index=1)


BAD_SETTINGS = [
    ({"tx_ring": 100}, "tx_ring of 100 descriptors: give a power of two from 8 to 1024"),
    ({"rx_ring": 4}, "rx_ring of 4 descriptors"),
    ({"tx_ring": 2048}, "tx_ring of 2048 descriptors"),
    ({"tx_ring": 0}, "tx_ring of 0 descriptors"),
    ({"seq_modulus": 256}, r"seq_modulus 256: give a power of two from 512 to 2\*\*32"),
    ({"seq_modulus": 1000}, "seq_modulus 1000"),
    ({"seq_modulus": 1 << 33}, "seq_modulus"),
    ({"mac": "02:00:00:00:00"}, "MAC address '02:00:00:00:00': give six bytes"),
    ({"mac": "02:00:00:00:00:xx"}, "give six bytes in hexadecimal"),
    ({"mac": "03:00:00:00:00:01"}, "MAC address 03:00:00:00:00:01: give six bytes of a unicast address"),
    ({"mac": "00:00:00:00:00:00"}, "unicast address"),
    ({"protection": "trust"}, "protection 'trust': give one of validated, none, iommu:single-use"),
    ({"protection": "iommu:lazy"}, "protection 'iommu:lazy'"),
    ({"vlan": 4095}, "VLAN 4095: give 1 to 4094, 0 for untagged frames, or 'trunk'"),
    ({"vlan": "any"}, "VLAN 'any'"),
    ({"weight": 0}, "weight 0: give 1 to 1000"),
    ({"weight": "much"}, "weight 'much': give a whole number"),
    ({"weight": 1.5}, "weight 1.5: give a whole number"),
    ({"tx_ring": -8}, "tx_ring -8: give 0 to 4294967296"),
    ({"rx_ring": 1 << 40}, "rx_ring 1099511627776: give 0 to"),
    ({"tx_ring": 8.0}, "tx_ring 8.0: give a whole number"),
    ({"seq_modulus": None}, "seq_modulus None: give a whole number"),
    ({"mac": 5}, "MAC address 5: give six bytes"),
    ({"mac": " 2:00:00:00:00:01"}, "MAC address ' 2:00:00:00:00:01': give six bytes"),
    ({"protection": None}, "protection None: give one of"),
    ({"protection": "iommu"}, "protection 'iommu': give one of"),
    ({"buffer_size": -64}, "buffer_size -64: give 64 to 65472"),
    ({"buffer_size": 1 << 32}, "buffer_size 4294967296: give 64 to"),
    ({"rate": float("nan")}, "rate nan: give up to 1e\\+12 bits a second"),
    ({"rate": 10**400}, "give up to 1e\\+12 bits a second"),
    ({"rate": "fast"}, "rate 'fast': give a number"),
    ({"rate": 10}, "rate 10 bit/s: give at least 8000"),
    ({"rate": -1}, "rate -1 bit/s"),
    (
        {"multicast": ("02:00:00:00:00:01",)},
        "multicast address 02:00:00:00:00:01: give six bytes, the first one odd",
    ),
    ({"multicast": ("01:00:5e:00:00:01",) * 17}, "17 multicast addresses: a context has 16 filters"),
]


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS, ids=lambda value: str(value)[:40])
def test_settings_that_cannot_be_leave_nothing_behind(machine, settings, message):
    before = machine.memory.free_pages
    with pytest.raises(ConfigError, match=message) as error:
        machine.attach("a", memory=64 * PAGE, **settings)
    assert "\n" not in str(error.value)
    assert machine.vmm.guests == machine.vmm.contexts == {}
    assert machine.memory.free_pages == before
    assert all(machine.nic.info(i)["state"] == ContextState.CONTEXT_FREE for i in range(4))
    Neighbours(machine).check()


def test_an_address_twice(machine):
    a = machine.attach("a", mac="02:00:00:00:00:01", tx_ring=8)
    with pytest.raises(ConfigError, match="MAC address 02:00:00:00:00:01 is context 0's already"):
        machine.attach("b", mac="02:00:00:00:00:01", tx_ring=8)
    b = machine.attach("b", tx_ring=8)
    with pytest.raises(ConfigError, match="is context 0's already"):
        b.context.set(mac="02:00:00:00:00:01")
    machine.vmm.revoke(a.context)
    b.context.set(mac="02:00:00:00:00:01")
    assert b.context.mac == "02:00:00:00:00:01"


def test_settings_of_a_context_that_was_revoked(machine):
    a = machine.attach("a")
    with pytest.raises(ConfigError, match="context setting 'colour': give some of mac, vlan,"):
        a.context.set(colour="blue")
    machine.vmm.revoke(a.context)
    with pytest.raises(ConfigError, match="context 0 was revoked: assign it again"):
        a.context.set(vlan=1)


def test_a_page_given_away_is_the_new_owners_to_use(machine):
    giver, taker = Hostile(machine, "giver", pages=4), Hostile(machine, "taker", pages=4)
    neighbours = Neighbours(machine)
    page = giver.guest.first_page + 1
    letter = frame(mac(neighbours.bob), taker.mac, 1, 100)
    giver.write(letter, page=1)
    machine.vmm.transfer([page], giver.guest, taker.guest)
    assert giver.enqueue(TX, [(page * PAGE, 100, EOP)]) < 0
    assert taker.post(TX, [(page * PAGE, 100, EOP)]) == 1
    machine.step(2)
    assert neighbours.bob.recv() == [letter]


def test_completion_unpins_at_the_transfer(machine):
    """Pins are dropped lazily, at the next hypercall; giving a page away is one."""
    giver, taker = Hostile(machine, "giver", pages=4), Hostile(machine, "taker", pages=4)
    page = giver.guest.first_page
    giver.post(TX, [(giver.maddr(), 60, EOP)])
    machine.step()
    assert machine.memory.pins()[page] == 1
    machine.vmm.transfer([page], giver.guest, taker.guest)
    assert machine.memory.pins()[page] == 0
    assert machine.memory.owners()[page] == taker.guest.domain


def test_pins_are_dropped_by_the_next_enqueue_of_the_same_ring(machine):
    mallory = Hostile(machine, pages=4)
    pins = machine.memory.pins()[mallory.guest.first_page :]
    for n in range(1, 20):
        assert mallory.post(TX, [(mallory.maddr(n % 4), 60, EOP)]) == 1
        assert pins[:4].tolist() == [1 if page == n % 4 else 0 for page in range(4)]
        machine.step()


def test_a_direct_map_holds_only_what_the_guest_still_owns(machine):
    """Pages given away before the context was assigned are out of its NIC's reach."""
    giver, taker = machine.vmm.create_guest("giver", 4 * PAGE), machine.vmm.create_guest("taker", PAGE)
    secret = frame(b"\2" * 6, b"\2" * 6, 1, 100)
    giver.memory[PAGE : PAGE + 100] = list(secret)
    machine.vmm.transfer([giver.first_page + 1], giver, taker)
    machine.vmm.assign(giver, ContextSettings(protection="iommu:direct-map"))
    pins = machine.memory.pins()[giver.first_page :]
    assert pins[:4].tolist() == [1, 0, 1, 1]
    machine.vmm.destroy_guest(giver)
    assert machine.memory.owners()[giver.first_page + 1] == taker.domain


def test_a_driver_that_does_not_fit(machine):
    guest = machine.vmm.create_guest("a", 2 * PAGE)
    context = machine.vmm.assign(guest)
    with pytest.raises(ConfigError, match="needs 1052672 bytes, the guest has 8192: give it more memory"):
        Driver(context)
    for size in (0, 63, 100, 65536):
        with pytest.raises(
            ConfigError, match=f"buffers of {size} bytes: give a multiple of 64 from 64 to 65472"
        ):
            Driver(context, size)


def test_the_same_context_assigned_again_works_as_new(machine):
    neighbours = Neighbours(machine)
    guest = machine.vmm.create_guest("carol", 64 * PAGE)
    for i in range(20):
        context = machine.vmm.assign(guest, ContextSettings(tx_ring=8, rx_ring=8))
        carol = Driver(context)
        letter = frame(mac(neighbours.bob), mac(carol), i)
        assert carol.send([letter]) == 1
        machine.step(2)
        assert neighbours.bob.recv() == [letter]
        assert context.stats()["tx_frames"] == 1
        machine.vmm.revoke(context)


def test_closing_twice_is_harmless():
    machine = Machine(1 << 20)
    machine.attach("a", tx_ring=8, rx_ring=8)
    machine.close()
    machine.close()
    assert machine.vmm.guests == {}
    with Machine(1 << 20) as machine:
        machine.close()


def test_an_error_is_one_of_the_packages():
    assert issubclass(ConfigError, CdnaError)
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ResourceError, RuntimeError)


def test_no_page_is_given_to_a_guest_that_is_gone(machine):
    giver, gone = (machine.vmm.create_guest(name, PAGE) for name in ("giver", "gone"))
    machine.vmm.destroy_guest(gone)
    with pytest.raises(ConfigError, match="'gone' was destroyed"):
        machine.vmm.transfer([giver.first_page], giver, gone)
    assert machine.memory.owners()[giver.first_page] == giver.domain


def test_a_machine_that_cannot_be_closes_its_wire():
    wire = LoopbackWire()
    with pytest.raises(ConfigError, match="contexts"):
        Machine(1 << 20, wire=wire, contexts=0)
    assert wire.closed
