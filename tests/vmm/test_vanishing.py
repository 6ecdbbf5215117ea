"""Guests in other processes that end at any step, and what they still map when they have ended."""

import random

import pytest

from cdna.abi import ContextState
from cdna.base.units import PROTECTIONS
from tests.support.remote_host import frame_between

STEPS = {
    "connected": "connect()",
    "asked for a guest": """connect().send(json.dumps(
        {"version": 1, "name": "guest", "memory": 1 << 20, "settings": {}}).encode())""",
    "answered, nothing mapped": "attach_bare()",
    "attached": "attach()",
    "attached, iommu": "attach(protection='iommu:direct-map')",
    "enqueued without a doorbell": """attach()
hypercall(HYPERCALL_ENQUEUE, struct.pack("<QHHI", geometry["maddr"], 60, 1, 0) * 200, n=200)""",
    "mapped I/O pages": """attach(protection='iommu:single-use')
hypercall(HYPERCALL_MAP, struct.pack("<II", 3000, geometry["maddr"] >> 12), n=1)""",
    "frames on their way": "attach(); driver.send([frame] * 100)",
    "a hypercall without its reply": """attach()
sock.send(struct.pack("<HHIQ", HYPERCALL_ENQUEUE, 0, 1, 0)
          + struct.pack("<QHHI", geometry["maddr"], 60, 1, 0))""",
    "a status without its reply": 'attach(); sock.send(struct.pack("<HHIQ", HYPERCALL_STATUS, 0, 0, 0))',
    "stopped by a fault": "attach(); os.pwrite(page_fd, bytes([255]) * 128, 0)",
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_killed_at_any_step(host, guest, step):
    guest.run(step, frame=host.there)
    guest.kill()
    host.settle()
    assert sorted(host.machine.vmm.guests) == ["alice", "bob"]
    host.talk()


def test_killed_at_any_moment(host, start):
    """The NIC runs, the guest sends and receives as fast as it goes, and is gone in the middle of it."""
    host.machine.start()
    dice = random.Random(1)
    for _ in range(8):
        guest = start()
        guest.run("attach()")
        guest.start("""
while True:
    driver.send([frame] * 50)
    driver.recv()
""", frame=frame_between(host.guest_context(), host.bob.context))  # fmt: skip
        frames, wanted = 0, dice.randrange(1, 500)
        while frames < wanted:
            frames += len(host.bob.recv())
        guest.kill()
        host.settle()
        assert sorted(host.machine.vmm.guests) == ["alice", "bob"]
    host.machine.nic.stop_engine()
    host.bob.recv(1000)


def test_contexts_go_round_without_a_trace(host, guest):
    """More guests than contexts, one after the other: what the last one left is in nobody's way."""
    for i in range(30):
        sent = guest.run(
            """
attach(protection=protection)
result = driver.send([frame] * 3)
""",
            frame=frame_between(host.bob.context, host.alice.context),  # a source that is not its own
            protection=PROTECTIONS[i % len(PROTECTIONS)],
        )
        assert sent == 3
        context = host.guest_context()
        host.machine.step(2)
        assert context.stats()["tx_drop_spoof"] == 3
        assert context.state == ContextState.CONTEXT_RUNNING
        guest.run("driver.close()")
        host.settle()
        assert host.machine.memory.free_pages == host.baseline["free pages"]


# --- after the end ----------------------------------------------------------------------------------------


def test_a_revoked_guest_writes_to_memory_of_nobody(host, start):
    """Its page, its rings and its memory stay mapped in its process; the next owner has others."""
    old, new = start(), start()
    old.run("attach(protection='iommu:shared')")
    first = host.machine.guest("guest")
    context = host.guest_context()
    host.machine.vmm.revoke(context)
    assert old.run("result = sock.recv(1)") == b""  # it hears of it
    host.settle()
    new.run("attach(protection='iommu:shared')")
    second = host.machine.guest("guest")
    assert (second.maddr, host.guest_context().index) == (first.maddr, context.index)
    old.run("""
for fd in (memory_fd, page_fd, rings_fd):
    size = os.fstat(fd).st_size
    os.pwrite(fd, bytes([0xEE]) * size, 0)
    np.frombuffer(map_file(fd, size), "u1")[:] = 0xEE
driver.enable_interrupts(True)
""")
    host.machine.step(3)
    assert not (second.memory == 0xEE).any()
    assert not (host.machine.nic.rings_view(context.index) == 0xEE).any()
    assert host.guest_context().state == ContextState.CONTEXT_RUNNING
    assert (
        new.run(
            "result = driver.send([frame] * 3)", frame=frame_between(host.guest_context(), host.bob.context)
        )
        == 3
    )
    host.machine.step()
    assert len(host.bob.recv()) == 3
    assert old.run("result = bytes([0xEE]) * 100 in os.pread(memory_fd, 1 << 20, 0)")
    host.talk()


def test_the_next_owner_in_this_process_is_out_of_reach_too(host, guest):
    guest.run("attach(protection='iommu:shared', tx_ring=8, rx_ring=8)")
    context = host.guest_context()
    guest.run("os.pwrite(memory_fd, bytes([0xEE]) * 5000, 0); os.pwrite(rings_fd, bytes([0xEE]) * 5000, 0)")
    host.machine.vmm.revoke(context)
    host.settle()
    carol = host.machine.attach("carol", tx_ring=8, rx_ring=8)
    assert carol.context.index == context.index
    guest.run("""
os.pwrite(page_fd, bytes([0xEE]) * 4096, 0)
os.pwrite(memory_fd, bytes([0xEE]) * os.fstat(memory_fd).st_size, 0)
os.pwrite(rings_fd, bytes([0xEE]) * os.fstat(rings_fd).st_size, 0)
""")
    frame = frame_between(carol.context, host.bob.context)
    assert carol.send([frame] * 5) == 5
    host.machine.step()
    assert host.bob.recv() == [frame] * 5
    assert not (host.machine.guest("carol").memory == 0xEE).any()
    assert not (host.machine.nic.page_view(context.index) == 0xEE).any()
    host.machine.vmm.destroy_guest(host.machine.guest("carol"))
    del carol
    host.talk()


def test_the_guest_hears_of_its_end(host, guest):
    guest.run("attach()")
    guest.start("""
try:
    driver.wait(60)
except Exception as error:
    result = f"{type(error).__name__}: {error}"
""")
    host.machine.vmm.revoke(host.guest_context())
    assert guest._answer().startswith("ResourceError: context 2 is no longer this guest's")
    assert guest.run("""
try:
    driver.send([frame])
except Exception as error:
    result = f"{type(error).__name__}: {error}"
""", frame=host.there).startswith("ResourceError: context 2 is no longer this guest's")  # fmt: skip
    host.talk()
