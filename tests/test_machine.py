"""A machine used wrongly: an error that says what would be right, never a crash, never a hang."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from cdna.base.descriptors import readable
from cdna.errors import CdnaError, ConfigError
from cdna.guests.driver import Driver
from cdna.machine import Machine
from cdna.memory import Memory
from cdna.nic.device import Nic
from cdna.nic.null_wire import NullWire
from cdna.vmm.hypervisor import Hypervisor
from cdna.vmm.tables import Tables
from tests.support.frames import frame, mac

MEMORY = 4 << 20


@pytest.fixture
def machine():
    machine = Machine(MEMORY, wire="loopback", contexts=4)
    yield machine
    machine.close()


@pytest.mark.parametrize("memory", [0, -1, 1 << 41, 1 << 70])
def test_memory_of_no_possible_size(memory):
    with pytest.raises(ConfigError, match=f"memory of {memory} bytes: give between"):
        Machine(memory)


@pytest.mark.parametrize("contexts", [0, -1, 5000, 1 << 40])
def test_as_many_contexts_as_no_nic_has(contexts):
    with pytest.raises(ConfigError, match=f"{contexts} contexts: give from 1 to 4096"):
        Machine(MEMORY, contexts=contexts)


@pytest.mark.parametrize(
    "option", [{"max_ring": 1 << 40}, {"interrupt_frames": 1 << 40}, {"interrupt_us": float("nan")}], ids=str
)
def test_settings_of_a_nic_that_cannot_be(option):
    with pytest.raises(ConfigError, match="give"):
        Machine(MEMORY, **option)


def test_numbers_of_numpy_are_numbers():
    with Machine(np.int64(MEMORY), contexts=np.int32(2)) as machine:
        driver = machine.attach("a", tx_ring=np.uint16(8), vlan=np.uint8(7), rate=np.int64(10**6))
        driver.context.set(weight=np.int64(3), rate=np.float32(1e6))
        assert machine.nic.info(0)["vlan"] == 7
        assert machine.nic.info(0)["weight"] == 3


def test_none_where_an_object_belongs_is_a_type_error():
    memory = Memory(MEMORY)
    for wrong in (
        lambda: Machine(MEMORY, wire=None),
        lambda: Nic(memory, None),
        lambda: Nic(None, NullWire()),
        lambda: Hypervisor(memory, None),
        lambda: Tables(None),
    ):
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 65, "\0", b"bytes", None])
def test_a_name_that_cannot_be(machine, name):
    with pytest.raises(ConfigError, match=r"guest name .*: give 1 to 64 printable characters"):
        machine.attach(name)


def test_a_guest_that_is_not_there(machine):
    with pytest.raises(ConfigError, match=r"no guest 'a': give one of this machine \(there is none\)"):
        machine.guest("a")
    machine.attach("b")
    with pytest.raises(ConfigError, match=r"no guest 'a': give one of this machine \('b'\)"):
        machine.guest("a")


def test_a_destroyed_guest_gets_nothing_more(machine):
    machine.attach("a")
    bob = machine.attach("b").context.guest
    gone = machine.guest("a")
    machine.vmm.destroy_guest(gone)
    machine.vmm.destroy_guest(gone)
    for use in (
        lambda: machine.vmm.assign(gone),
        lambda: machine.vmm.transfer([bob.first_page], bob, gone),
        lambda: machine.vmm.transfer([gone.first_page], gone, bob),
    ):
        with pytest.raises(ConfigError, match=r"guest 'a' .*was destroyed"):
            use()


@pytest.mark.parametrize("page", [-1, 1 << 40, 1.5, "1", None])
def test_pages_that_are_none(machine, page):
    a, b = (machine.attach(name).context.guest for name in "ab")
    with pytest.raises(ConfigError, match=r"^page "):
        machine.vmm.transfer([page], a, b)


@pytest.mark.parametrize(
    "use",
    [
        lambda machine: machine.step(),
        lambda machine: machine.start(),
        lambda machine: machine.__enter__(),
        lambda machine: machine.attach("c"),
        lambda machine: machine.serve("unused"),
        lambda machine: machine.vmm.start_interrupts(),
    ],
)
def test_nothing_moves_in_a_closed_machine(machine, use):
    machine.attach("a")
    machine.close()
    machine.close()
    with pytest.raises(ConfigError, match="this machine was closed: make another"):
        use(machine)
    assert not machine.nic.alive
    with pytest.raises(ConfigError, match="no guest 'a'"):
        machine.guest("a")


def test_two_engines_on_one_nic(machine):
    machine.start()
    for second in (machine.start, machine.nic.run):
        with pytest.raises(ConfigError, match="the NIC runs already"):
            second()
    with pytest.raises(ConfigError, match="the NIC runs in its own thread"):
        machine.step()


def test_who_waits_for_frames_learns_of_the_end():
    def watched(*arguments):
        """Tells when somebody is about to sleep."""
        asleep.set()
        return readable(*arguments)

    asleep = threading.Event()
    machine = Machine(MEMORY, wire="loopback", contexts=4)
    machine.start()
    driver = machine.attach("a")
    errors: list[CdnaError] = []

    def wait() -> None:
        try:
            driver.wait()
        except CdnaError as error:
            errors.append(error)

    waiter = threading.Thread(target=wait, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cdna.guests.driver.readable", watched)
        waiter.start()
        assert asleep.wait(20)
        machine.close()
        waiter.join(20)
    assert not waiter.is_alive()
    assert "context 0 was revoked" in str(errors[0])


@pytest.mark.parametrize("wrong", [60, 10**6, 1 << 62, np.int64(100), None, "text"])
def test_what_is_no_frame_is_not_sent_and_what_stood_before_it_is(machine, wrong):
    a, b = machine.attach("a"), machine.attach("b")
    good = frame(mac(b), mac(a))
    with pytest.raises(TypeError):
        a.send([good, wrong, good])
    machine.step()
    assert b.recv() == [good]


def test_one_frame_in_place_of_a_sequence_of_frames(machine):
    a, b = machine.attach("a"), machine.attach("b")
    with pytest.raises(TypeError, match="frame 0 is 2: give a sequence of frames, each of bytes"):
        a.send(b"\2" + frame(mac(b), mac(a)))


@pytest.mark.parametrize(
    "offload", [(), (1, 2), (1, 2, 3, 4, 5), (-1, 0, 0, 0), (1 << 16, 0, 0, 0), (0.5,) * 4]
)
def test_an_offload_that_cannot_be(machine, offload):
    a, b = machine.attach("a"), machine.attach("b")
    with pytest.raises(
        ConfigError, match=r"give .csum_start, csum_offset, mss, hdr_len., each from 0 to 65535"
    ):
        a.send([frame(mac(b), mac(a))], offload=offload)
    assert not a.faulted


def test_contexts_that_the_vmm_has_no_table_for(machine):
    tables = machine.vmm.tables
    for use in (tables.close_context, tables.reap, tables.events):
        with pytest.raises(ConfigError, match="context 4: this NIC has contexts 0 to 3"):
            use(4)
    tables.close_context(3)  # which was never opened
    with pytest.raises(ConfigError, match="context 4: "):
        tables.open_context(4, 1, -1, 0)
    with pytest.raises(ConfigError, match=r"8 pages from page 0: .* 0 I/O pages"):
        tables.map_guest(0, 0, 8)


def test_a_name_with_a_zero_byte_is_no_wire():
    for text in ("tap:\0", "pcap:\0", "\0"):
        with pytest.raises(ConfigError, match="no name has a zero byte"):
            Machine(MEMORY, wire=text)


def test_every_context_of_the_largest_nic_is_assigned_and_revoked():
    machine = Machine(128 << 20, contexts=4096)
    for i in range(4096):
        machine.attach(f"g{i}", tx_ring=8, rx_ring=8, buffer_size=64)
    assert len({context.mac for context in machine.vmm.contexts.values()}) == 4096
    with pytest.raises(CdnaError, match="all 4096 contexts are taken"):
        machine.attach("one more", tx_ring=8, rx_ring=8, buffer_size=64)
    machine.close()
    assert machine.memory.free_pages == machine.memory.pages


def test_a_driver_for_a_context_that_is_gone(machine):
    context = machine.attach("a").context
    machine.vmm.revoke(context)
    with pytest.raises(ConfigError, match="context 0 was revoked: assign it again"):
        Driver(context)
