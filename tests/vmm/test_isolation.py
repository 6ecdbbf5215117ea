"""A guest in a process of its own that reaches for more than it was given.

Every test ends at the baseline: no guest, no pin, no page, no descriptor is left, and two neighbours that
talk to each other all the time lose nothing (`host` in conftest.py).
"""

import os
import signal

import pytest

from cdna.abi import ContextState, Fault, Refusal, Ring
from cdna.base.units import PROTECTIONS
from tests.support.guest_process import GuestEnded
from tests.support.remote_host import frame_between

PROTECTED = [name for name in PROTECTIONS if name != "none"]  # without, a ring may name any page
GUEST_WRITES_RING = [name for name in PROTECTED if name != "validated"]


# --- what the kernel refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["memory_fd", "page_fd", "rings_fd"])
def test_nothing_lies_behind_the_end_of_a_file(host, guest, file):
    guest.run("attach()")
    with pytest.raises(GuestEnded) as ended:
        guest.run(
            """
size = os.fstat(fd).st_size
bytes_ = map_file(fd, size + 4096, writable=False)
bytes_[size - 1]                            # the last of its own
bytes_[size]
""".replace("fd", file)
        )
    assert ended.value.args == (-signal.SIGBUS,)
    host.talk()


@pytest.mark.parametrize("file", ["memory_fd", "page_fd", "rings_fd"])
def test_no_file_changes_its_size_or_its_seals(host, guest, file):
    guest.run("attach()")
    outcome = guest.run(
        """
size = os.fstat(fd).st_size
result = {
    "shrink": tries(os.ftruncate, fd, 0),
    "shrink a page": tries(os.ftruncate, fd, size - 4096),
    "grow": tries(os.ftruncate, fd, size + 4096),
    "grow by writing": tries(os.pwrite, fd, b"more", size),
    "seal": tries(fcntl.fcntl, fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
}
""".replace("fd", file)
    )
    assert set(outcome.values()) == {"EPERM"}
    host.talk()


def test_the_rings_of_a_validated_context_are_read_only(host, guest):
    guest.run("attach()")
    outcome = guest.run("""
size = os.fstat(rings_fd).st_size
libc = ctypes.CDLL(None, use_errno=True)

def protect():
    at = ctypes.addressof(map_file(rings_fd, size, writable=False))
    if libc.mprotect(ctypes.c_void_p(at), ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_WRITE):
        raise OSError(ctypes.get_errno(), "mprotect")

def punch():
    if libc.fallocate(rings_fd, 3, ctypes.c_long(0), ctypes.c_long(size)):
        raise OSError(ctypes.get_errno(), "fallocate")

result = {
    "map": tries(map_file, rings_fd, size),
    "map another description": tries(map_file, os.open(f"/proc/self/fd/{rings_fd}", os.O_RDWR), size),
    "write": tries(os.pwrite, rings_fd, b"x", 0),
    "mprotect": tries(protect),
    "punch a hole": tries(punch),
}
""")
    assert outcome == {
        "map": "EPERM",
        "map another description": "EPERM",
        "write": "EPERM",
        "mprotect": "EACCES",
        "punch a hole": "EPERM",
    }
    host.talk()


@pytest.mark.skipif(os.geteuid() != 0, reason="a guest of another user needs root to start")
def test_the_memory_of_the_vmm_is_out_of_reach_of_another_user(host, guest):
    guest.run("attach()")
    outcome = guest.run(
        """
os.setgroups([])
os.setresgid(NOBODY, NOBODY, NOBODY)
os.setresuid(NOBODY, NOBODY, NOBODY)
libc = ctypes.CDLL(None, use_errno=True)

def trace():
    if libc.ptrace(16, vmm, None, None):    # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")

def steal():
    if libc.syscall(438, os.pidfd_open(vmm), 3, 0) < 0:     # pidfd_getfd
        raise OSError(ctypes.get_errno(), "pidfd_getfd")

result = {
    "memory": tries(os.open, f"/proc/{vmm}/mem", os.O_RDWR),
    "descriptors": tries(os.listdir, f"/proc/{vmm}/fd"),
    "trace": tries(trace),
    "kill": tries(os.kill, vmm, 9),
    "steal a descriptor": tries(steal),
}
""",
        vmm=os.getpid(),
    )
    assert outcome == {
        "memory": "EACCES",
        "descriptors": "EACCES",
        "trace": "EPERM",
        "kill": "EPERM",
        "steal a descriptor": "EPERM",
    }
    # It still drives its own context.
    assert guest.run("result = driver.send([frame])", frame=host.there) == 1
    host.talk()


def test_a_file_of_another_guest_is_not_reached_by_guessing(host, start):
    """The files of two guests are different ones, and none of them holds the other's bytes."""
    guests = [start(), start()]
    for i, guest in enumerate(guests):
        guest.run("attach(name)", name=f"guest{i}")
        guest.run("os.pwrite(memory_fd, mark * 64, 8192)", mark=b"guest%d" % i)
    for i, guest in enumerate(guests):
        bytes_ = guest.run("result = os.pread(memory_fd, 1 << 30, 0)")
        assert b"guest%d" % i in bytes_
        assert b"guest%d" % (1 - i) not in bytes_
    host.talk()


# --- what the VMM and the NIC refuse ----------------------------------------------------------------------


@pytest.mark.parametrize("protection", PROTECTED)
def test_garbage_all_over_its_page_and_its_memory(host, guest, protection):
    guest.run("attach(protection=protection)", protection=protection)
    guest.run(
        "result = driver.send([frame] * 5)", frame=frame_between(host.guest_context(), host.bob.context)
    )
    for seed in range(40):
        guest.run("""
dice = random.Random(seed)
os.pwrite(page_fd, dice.randbytes(4096), 0)
os.pwrite(memory_fd, dice.randbytes(os.fstat(memory_fd).st_size), 0)
""", seed=seed)  # fmt: skip
        host.machine.step(2)
        host.bob.recv()  # what it sent while it still ran
        host.talk(1)
    assert host.guest_context().state == ContextState.CONTEXT_FAULTED
    assert host.guest_fault().reason == Fault.FAULT_PRODUCER
    assert host.guest_fault().guest == "guest"


@pytest.mark.parametrize("protection", GUEST_WRITES_RING)
def test_garbage_in_a_ring_that_the_guest_writes(host, guest, protection):
    reasons = set()
    foreign = host.machine.guest("bob").memory
    kept = foreign.copy()
    for seed in range(12):
        guest.run("""
attach(protection=protection)
dice = random.Random(seed)
os.pwrite(rings_fd, dice.randbytes(os.fstat(rings_fd).st_size), 0)
page = map_file(page_fd, 4096)
words = np.frombuffer(page, "<u4")
words[0:2] = 200, 200                       # both producers
words[24] = 3                               # both doorbells
""", protection=protection, seed=seed)  # fmt: skip
        assert host.alice.send([frame_between(host.alice.context, host.guest_context())]) == 1
        host.machine.step(3)
        assert host.guest_context().state == ContextState.CONTEXT_FAULTED
        reasons.add(host.guest_fault().reason)
        guest.run("driver.close()")
        host.settle()
    assert reasons <= {Fault.FAULT_FLAGS, Fault.FAULT_LENGTH, Fault.FAULT_OFFLOAD, Fault.FAULT_TRANSLATION}
    assert (foreign == kept).all()


@pytest.mark.parametrize("protection", GUEST_WRITES_RING)
def test_a_ring_that_changes_while_the_nic_reads_it(host, guest, protection):
    """The NIC's thread reads descriptors that the guest rewrites all the time: it uses what it checked."""
    machine, context_faults = host.machine, machine_faults(host.machine)
    machine.start()
    guest.start("""
attach(protection=protection)
bytes_ = np.frombuffer(map_file(rings_fd, os.fstat(rings_fd).st_size), "<u8")
words = np.frombuffer(map_file(page_fd, 4096), "<u4")
addresses = bytes_[0:512:2]
lengths = bytes_[1:512:2]
for i in range(20000):
    addresses[:] = i % 7 * 4096
    lengths[:] = (i % 1500) | 1 << 16
    words[0] = int(words[32]) + 100         # as far as the NIC has come, and more
    words[24] = 1
    lengths[:] = 0xFFFF | 1 << 16
    addresses[:] = 1 << 63
result = driver.faulted
""", protection=protection)  # fmt: skip
    frames = 0
    while frames < 4000:
        host.alice.send([host.there] * 8)
        received = host.bob.recv()
        assert set(received) <= {host.there}
        frames += len(received)
    assert guest._answer() is True
    machine.nic.stop_engine()
    while host.alice.tx_pending:
        machine.nic.poll()
    host.bob.recv(1000)
    assert machine_faults(machine) == context_faults + 1


def test_holes_punched_while_the_nic_reads_and_writes_there(host, guest):
    """A guest throws its own pages away all the time; nobody's DMA fails by it."""
    guest.run("attach()")
    context = host.guest_context()
    host.machine.start()
    guest.start("""
libc = ctypes.CDLL(None)
for _ in range(3000):
    for fd in (page_fd, memory_fd):
        libc.fallocate(fd, 3, ctypes.c_long(0), ctypes.c_long(os.fstat(fd).st_size))
""")
    to_guest, frames = frame_between(host.alice.context, context), 0
    while frames < 2000:
        host.alice.send([host.there] * 4 + [to_guest] * 4)
        received = host.bob.recv()
        assert set(received) <= {host.there}
        frames += len(received)
    guest._answer()
    host.machine.nic.stop_engine()
    while host.alice.tx_pending:
        host.machine.nic.poll()
    host.bob.recv(1000)


def machine_faults(machine):
    return machine.nic.counters["faults"]


def test_foreign_pages_in_a_hypercall(host, guest):
    guest.run("attach_bare()")
    pins = host.machine.memory.pins().copy()
    victim = host.machine.guest("bob")
    statuses = guest.run(
        """
desc = lambda addr, length, flags=1: struct.pack("<QHHI", addr, length, flags, 0)
own, end = geometry["maddr"], geometry["maddr"] + geometry["size"]
call = lambda *args, **more: hypercall(HYPERCALL_ENQUEUE, desc(*args), n=1, **more)
result = [
    call(victim, 100),
    call(victim, 100, ring=1),
    call(own - 1, 2) if own else -2,        # across the border
    call(end - 1, 2),
    call(machine, 1),
    call(2**64 - 1, 2),
    call(2**63, 65535),
    call(own, 0),
    call(own, 100, 0x8000),
    call(own, 100, 2, ring=1),
    call(own, 100, ring=2),
    hypercall(HYPERCALL_MAP, struct.pack("<II", 0, 0), n=1),
    hypercall(HYPERCALL_UNMAP, struct.pack("<I", 0), n=1),
]
""",
        victim=victim.maddr,
        machine=host.machine.memory.size,
    )
    owner, address, mode = Refusal.REFUSED_OWNER, Refusal.REFUSED_ADDRESS, Refusal.REFUSED_MODE
    assert statuses == [
        owner, owner, owner, owner, address, address, address, Refusal.REFUSED_LENGTH, Refusal.REFUSED_FLAGS,
        Refusal.REFUSED_FLAGS, Refusal.REFUSED_CONTEXT, mode, mode,
    ]  # fmt: skip
    assert (host.machine.memory.pins() == pins).all()
    host.talk()


def test_a_batch_stops_at_what_is_refused(host, guest):
    guest.run("attach_bare()")
    taken = guest.run(
        """
own = geometry["maddr"]
entries = [own, own + 4096, victim, own]
result = hypercall(HYPERCALL_ENQUEUE, b"".join(struct.pack("<QHHI", a, 60, 1, 0) for a in entries), n=4)
""",
        victim=host.machine.guest("bob").maddr,
    )
    assert taken == 2
    assert host.guest_context().vmm.tables.counters["refusals"] >= 1
    host.talk()


def test_foreign_pages_in_an_io_page_table(host, guest):
    guest.run("attach_bare(protection='iommu:single-use')")
    statuses = guest.run(
        """
own = geometry["maddr"] >> 12
pages = lambda *numbers: struct.pack(f"<{len(numbers)}I", *numbers)
result = [
    hypercall(HYPERCALL_MAP, pages(0, victim), n=1),
    hypercall(HYPERCALL_MAP, pages(0, 0xFFFFFFFF), n=1),
    hypercall(HYPERCALL_MAP, pages(0xFFFFFFFF, own), n=1),
    hypercall(HYPERCALL_MAP, pages(0, own), n=1),
    hypercall(HYPERCALL_MAP, pages(0, own), n=1),
    hypercall(HYPERCALL_UNMAP, pages(1), n=1),
    hypercall(HYPERCALL_UNMAP, pages(0xFFFFFFFF), n=1),
    hypercall(HYPERCALL_ENQUEUE, bytes(16), n=1),
]
""",
        victim=host.machine.guest("bob").first_page,
    )
    mapped = Refusal.REFUSED_MAPPED
    assert statuses == [
        Refusal.REFUSED_OWNER, Refusal.REFUSED_ADDRESS, Refusal.REFUSED_ADDRESS, 1, mapped, mapped, mapped,
        Refusal.REFUSED_MODE,
    ]  # fmt: skip
    host.talk()


def test_a_doorbell_for_what_was_never_enqueued(host, guest):
    guest.run("""
attach()
words = np.frombuffer(map_file(page_fd, 4096), "<u4")
words[0] = 10                               # the transmit ring's producer
words[24] = 1
""")
    host.machine.step()
    assert (host.guest_fault().reason, host.guest_fault().ring) == (Fault.FAULT_SEQUENCE, Ring.RING_TX)
    host.talk()


def test_a_doorbell_for_more_than_was_enqueued(host, guest):
    """Of 10 receive descriptors that are announced, 4 were enqueued: these are used, the next one is not."""
    guest.run("""
attach_bare()
entry = struct.pack("<QHHI", geometry["maddr"], 2048, 0, 0)
hypercall(HYPERCALL_ENQUEUE, entry * 4, n=4, ring=1)
words = np.frombuffer(map_file(page_fd, 4096), "<u4")
words[1], words[24] = 10, 2
""")
    frame = frame_between(host.alice.context, host.guest_context())
    assert host.alice.send([frame] * 6) == 6
    host.machine.step()
    fault = host.guest_fault()
    assert (fault.reason, fault.ring, fault.index) == (Fault.FAULT_SEQUENCE, Ring.RING_RX, 4)
    assert host.guest_context().stats()["rx_frames"] == 4
    host.talk()
