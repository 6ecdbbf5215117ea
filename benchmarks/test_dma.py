"""DMA: buffers copied to and from the NIC, frames delivered, addresses checked and translated.

An operation is one buffer, frame or address.
"""

import pytest
from benchmarks.units import deliveries, dma_addresses, dma_copies

from cdna.abi import PAGE_BYTES

pytestmark = pytest.mark.benchmark(group="dma", max_time=0.2)

N = 1000
BUFFERS = 64
STRIDE = 9024  # bytes from buffer to buffer: an odd number of cache lines
PAGES = -(-BUFFERS * STRIDE // PAGE_BYTES)
RING_BUFFER = 2048  # bytes of a receive buffer: a frame of 9000 is scattered over five

protections = pytest.mark.parametrize("protection", ["none", "iommu:direct-map"])
lengths = pytest.mark.parametrize("length", [64, 1514, 9000])


@lengths
@protections
@pytest.mark.parametrize("write", [False, True], ids=["gather", "scatter"])
def test_copy(unit, make_rig, write, protection, length):
    """One buffer, from a guest's memory (gather) or to it (scatter); page by page behind an IOMMU."""
    rig = make_rig(1, protection, pages=PAGES)
    assert unit(N, dma_copies, rig.nic, 0, rig.address(0), STRIDE, BUFFERS, length, write, N) == N


@lengths
@protections
def test_deliver(unit, make_rig, protection, length):
    """A frame of two pieces into receive buffers of 2048 bytes, with its completions."""
    rig = make_rig(1, protection, ring=BUFFERS, pages=BUFFERS * RING_BUFFER // PAGE_BYTES)
    rig.fill_receive_ring(0, RING_BUFFER, RING_BUFFER)
    assert unit(N, deliveries, rig.nic, 0, 54, length, N) == N
    stats = rig.nic.stats(0)
    assert stats["rx_bytes"] == length * stats["rx_frames"]


@protections
def test_address(unit, make_rig, protection):
    """The bounds of machine memory, or a walk of the I/O page table, for buffers on pages of their own."""
    rig = make_rig(1, protection, pages=BUFFERS)
    assert unit(N, dma_addresses, rig.nic, 0, rig.address(0), PAGE_BYTES, BUFFERS, 1514, N) == N
