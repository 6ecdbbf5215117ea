"""Backends that restart, frontends that reconnect, contexts that fault and go on."""

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from cdna.abi import ContextState, Fault
from cdna.guest_driver.vhost_frontend import ALL_PACKED, SPLIT, attach
from cdna.guest_driver.vrings import Buffer
from cdna.virtio import Feature
from tests.support.frames import frame
from tests.support.inflight import get_inflight, set_inflight
from tests.support.lab import DEADLINE
from tests.support.vhost_host import VhostHost, check_traffic, incoming, less, outgoing, until

BOTH = pytest.mark.parametrize("wanted", [SPLIT, ALL_PACKED], ids=["split", "packed"])


@BOTH
def test_a_frontend_that_reconnects_goes_on(host, guest, wanted):
    """What it had sent before and nobody had taken goes out, once."""
    attached = host.attach(guest, wanted)
    check_traffic(host, guest, attached)
    sent = outgoing(guest, 20)
    attached.send(sent)
    host.step()
    assert host.wire.get() == sent
    attached.reclaim()
    attached.send(outgoing(guest, 20, start=20))
    attached.reconnect(guest.path)
    host.step()
    assert host.wire.get() == outgoing(guest, 20, start=20)
    attached.reclaim()
    check_traffic(host, guest, attached)


@BOTH
def test_a_server_that_restarts(host, tmp_path, wanted):
    """The guest keeps its memory and its rings; another process of ours would find the same."""
    guest = host.add()
    attached = host.attach(guest, wanted)
    check_traffic(host, guest, attached)
    late = outgoing(guest, 10)
    attached.send(late)
    host.server.remove(guest)
    assert attached.frontend.ended()
    host.wire.put(incoming(guest))
    host.step()
    guest = host.add()
    attached.reconnect(guest.path)
    host.step()
    assert host.wire.get() == late
    attached.reclaim()
    assert attached.recv() == []
    check_traffic(host, guest, attached)


@BOTH
@pytest.mark.parametrize("rounds", [1, 5, 9])
def test_the_inflight_area_knows_better_than_a_stale_base(host, wanted, rounds):
    """A frontend that cannot ask a dead backend gives the base of long ago."""
    guest = host.add()
    attached = host.attach(guest, wanted, size=32)
    attached.stop()
    area, fd = get_inflight(attached.frontend, 2, 32)
    set_inflight(attached.frontend, area, fd)
    attached.start()
    for _ in range(rounds):
        check_traffic(host, guest, attached)
    late = outgoing(guest, 10)
    attached.send(late)
    host.server.remove(guest)
    attached.frontend.ended()
    guest = host.add()

    frontend = host.connect(guest, attached.memory)
    frontend.negotiate(wanted)
    set_inflight(frontend, area, fd)
    frontend.give_memory()
    stale = 0x80008000 if wanted == ALL_PACKED else 0
    for queue, ring in enumerate(attached.driver.queues):
        frontend.start(queue, ring, base=stale)
    frontend.sync()
    host.step()
    assert host.wire.get() == late
    attached.reclaim()
    check_traffic(host, guest, attached)
    os.close(fd)


def test_a_split_ring_goes_on_behind_its_used_index(host, guest):
    """Also without an inflight area a stale base does no harm."""
    attached = host.attach(guest)
    check_traffic(host, guest, attached)
    frontend = attached.frontend
    attached.stop()
    for queue, ring in enumerate(attached.driver.queues):
        frontend.start(queue, ring, base=0)
    frontend.sync()
    host.step()
    assert host.wire.get() == []
    check_traffic(host, guest, attached)


def test_a_position_that_a_dying_server_did_not_note(host):
    """A packed ring's driver has seen what was used since, and filled those slots again."""
    guest = host.add()
    attached = host.attach(guest, ALL_PACKED, size=16)
    check_traffic(host, guest, attached)
    noted = [ring.device_event["off_wrap"].copy() for ring in attached.driver.queues]
    check_traffic(host, guest, attached)
    host.server.remove(guest)
    for ring, position in zip(attached.driver.queues, noted, strict=True):
        ring.device_event["off_wrap"] = position
    guest = host.add()
    attached.reconnect(guest.path)
    check_traffic(host, guest, attached)


def test_a_packed_ring_of_chains_that_is_idle(host):
    """Where it stands there may be the middle of a chain of the lap before."""
    guest = host.add()
    attached = host.attach(
        guest, less(ALL_PACKED, Feature.VIRTIO_F_INDIRECT_DESC), size=15, split_header=True
    )
    for number in range(30):  # four laps, and each restart somewhere else
        sent = outgoing(guest, 1, start=number)
        assert attached.send(sent) == 1
        host.step()
        assert host.wire.get() == sent
        host.server.remove(guest)
        guest = host.add()
        attached.reconnect(guest.path)
    there = outgoing(guest, 7)
    assert attached.send(there) == 7
    host.step()
    assert host.wire.get() == there


SERVE = """
    import sys
    from cdna import ContextSettings, Machine
    from cdna.vmm.vhost_user import VhostUserServer
    with Machine(16 << 20) as machine, VhostUserServer(machine.vmm) as server:
        for number, name in ((11, "one"), (12, "two")):
            settings = ContextSettings(protection="table", mac=f"02:00:00:00:00:{number:02x}")
            server.add(name, f"{sys.argv[1]}/{name}.sock", settings=settings)
        print("ready", flush=True)
        sys.stdin.read()
"""


def serve(folder):
    command = [sys.executable, "-c", textwrap.dedent(SERVE), os.fspath(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def kill(process):
    process.kill()
    process.stdin.close()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL


BATCH = 16  # frames on their way at a time


@BOTH
def test_kill_9_with_traffic_flowing(tmp_path, wanted):
    """The rings go on where they were: lost or doubled is at most what was on its way."""
    to, source = bytes.fromhex("02000000000c"), bytes.fromhex("02000000000b")
    sent, received = [], []

    def send(driver):
        batch = [frame(to, source, len(sent) + i, 200) for i in range(BATCH)]
        assert driver.send(batch) == BATCH
        sent.extend(batch)

    process = serve(tmp_path)
    with attach(tmp_path / "one.sock", wanted) as one, attach(tmp_path / "two.sock", wanted) as two:
        for _ in range(3):
            for _ in range(10):
                send(one)
                until(lambda: received.extend(two.recv()) or received[-1:] == sent[-1:])
            send(one)
            kill(process)
            process = serve(tmp_path)
            two.reconnect(tmp_path / "two.sock")
            one.reconnect(tmp_path / "one.sock")
            received.extend(two.recv())
        send(one)
        until(lambda: received.extend(two.recv()) or received[-1:] == sent[-1:])
        kill(process)
    lost = set(sent) - set(received)
    assert len(lost) <= 3 * BATCH
    assert len(received) - len(set(received)) <= 3 * BATCH
    assert set(received) <= set(sent)
    assert not lost & set(sent[: 10 * BATCH])


# --- faults -----------------------------------------------------------------------------------------------


def breaks_a_rule(attached):
    """Makes a buffer available that is nowhere in memory."""
    attached.tx[0].add([Buffer(1 << 60, 100)])
    attached.tx[0].kick()


@pytest.fixture
def faulted(host, guest):
    attached = host.attach(guest)
    check_traffic(host, guest, attached)
    breaks_a_rule(attached)
    host.step()
    return attached


def test_a_fault_stops_its_own_context(host, guest, faulted):
    other = host.add("other", 11)
    neighbour = host.attach(other)
    host.machine.vmm.handle_interrupts()
    assert guest.context.state == ContextState.CONTEXT_FAULTED
    assert guest.describe()["state"] == "faulted"
    assert faulted.tx[0].failed(DEADLINE)
    assert host.machine.vmm.faults[-1].reason == Fault.FAULT_MEMORY
    assert guest.connected
    faulted.send(outgoing(guest))
    host.step()
    assert host.wire.get() == []
    check_traffic(host, other, neighbour)


def test_a_guest_that_resets_its_device_goes_on(host, guest, faulted):
    """As a frontend does when the guest reboots; and a second fault is reported as the first was."""
    for count in (1, 2):
        faulted.stop()
        assert guest.context.state == ContextState.CONTEXT_RUNNING
        driver = host.driver(faulted.memory, faulted.frontend.features, size=16)
        for queue, ring in enumerate(driver.queues):
            faulted.frontend.start(queue, ring)
        faulted.frontend.sync()
        check_traffic(host, guest, driver)
        assert len(host.machine.vmm.faults) == count
        driver.tx[0].add([Buffer(1 << 60, 100)])
        host.step()
        assert guest.context.state == ContextState.CONTEXT_FAULTED
    host.machine.vmm.collect_faults()
    assert len(host.machine.vmm.faults) == 3


def test_a_guest_that_reconnects_goes_on(host, guest, faulted):
    host.detach(guest, faulted)
    assert guest.context.state == ContextState.CONTEXT_RUNNING
    assert "FAULT_MEMORY" in guest.describe()["last_error"]
    check_traffic(host, guest, host.attach(guest))


def test_the_operator_resets_a_guest(host, guest, faulted):
    guest.reset()
    assert guest.context.state == ContextState.CONTEXT_RUNNING
    assert faulted.frontend.ended()
    check_traffic(host, guest, host.attach(guest))
    guest.reset()
    guest.reset()


def test_a_guest_without_a_frontend_is_reset(guest):
    guest.reset()
    assert guest.describe()["state"] == "waiting"


def test_memory_that_shrinks_is_a_fault(host, guest):
    other = host.add("other", 11)
    neighbour = host.attach(other)
    memory = host.memory()
    attached = host.attach(guest, memory=memory)
    attached.send(outgoing(guest))
    os.ftruncate(memory.fd, 0)  # whoever touches it gets SIGBUS now
    host.step()
    assert guest.context.state == ContextState.CONTEXT_FAULTED
    os.ftruncate(memory.fd, memory.size)  # zeros
    check_traffic(host, other, neighbour)
    host.detach(guest, attached)
    check_traffic(host, guest, host.attach(guest))


def test_two_hosts_at_once(tmp_path, host, guest):
    """Nothing is shared between two NICs of a process."""
    attached = host.attach(guest)
    folder = tmp_path / "second"
    folder.mkdir()
    second = VhostHost(folder)
    try:
        there = second.add()
        elsewhere = second.attach(there)
        check_traffic(host, guest, attached)
        check_traffic(second, there, elsewhere)
        second.clear()
        check_traffic(host, guest, attached)
    finally:
        second.close()
