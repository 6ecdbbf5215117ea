"""The enqueue hypercall, in batches of 64: an operation is a descriptor.

The call itself is a function call here: crossing into a VMM has a price of its own, once a batch, which
`cdna compare` pays.
"""

import numpy as np
import pytest
from benchmarks.units import enqueue_batches, reap_completed

from cdna.abi import PAGE_BYTES

pytestmark = pytest.mark.benchmark(group="enqueue", max_time=0.2)

BATCH = 64
LONG_RING = 4096  # descriptors: 64 batches without a reap


@pytest.fixture(params=[1, 2], ids=["one-page", "two-pages"])
def batch(request, make_rig):
    """A rig, and a batch of requests whose buffers lie on so many pages each."""
    rig = make_rig(1, "validated", ring=LONG_RING, pages=2 * BATCH)
    requests = rig.descriptors(0, BATCH, 2 * PAGE_BYTES, 1514)
    requests["addr"] += (request.param - 1) * (PAGE_BYTES - 1000)
    return rig, requests.view(np.uint8)


def test_enqueue_and_reap(unit, batch):
    """What a busy guest pays: each call drops the pins of the last one's descriptors, then takes its own."""
    rig, requests = batch
    calls = 64
    assert unit(BATCH * calls, enqueue_batches, rig.tables, 1, 0, requests, calls, True) == BATCH * calls
    assert rig.memory.pins().sum() in (BATCH, 2 * BATCH)  # of the last batch, which nobody reaped


def test_validate(unit, batch):
    """Owner check, pin, sequence number and the write to the ring; nothing is there to reap."""
    rig, requests = batch
    calls = LONG_RING // BATCH
    taken = unit(
        LONG_RING,
        enqueue_batches,
        *(rig.tables, 1, 0, requests, calls, False),
        setup=lambda: reap_completed(rig.tables, 0) and None,
    )
    assert taken == LONG_RING


def test_reap(unit, batch):
    """The pins of a whole ring dropped."""
    rig, requests = batch
    calls = LONG_RING // BATCH
    dropped = unit(
        LONG_RING,
        reap_completed,
        *(rig.tables, 0),
        setup=lambda: enqueue_batches(rig.tables, 1, 0, requests, calls, False) and None,
    )
    assert dropped == LONG_RING
    assert not rig.memory.pins().any()
