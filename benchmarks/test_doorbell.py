"""Doorbells: an operation is one scan of all contexts, the doorbells that it finds rung in the same time."""

import pytest
from benchmarks.units import ring_doorbells, scan_doorbells

pytestmark = pytest.mark.benchmark(group="doorbell", max_time=0.2)


def times(active: int) -> int:
    """How often: a call lasts tens of microseconds."""
    return max(10, 1000 // max(1, active))


@pytest.mark.parametrize("contexts", [32, 1024])
@pytest.mark.parametrize("active", ["idle", "one", "all"])
def test_scan(unit, make_rig, contexts, active):
    rung = {"idle": 0, "one": 1, "all": contexts}[active]
    n = times(rung)
    assert unit(n, scan_doorbells, make_rig(contexts).nic, rung, n) == rung * n


@pytest.mark.parametrize("contexts", [32, 1024])
def test_sweep(unit, make_rig, contexts):
    """Idle contexts of other processes, whose pages the NIC looks at itself, some in each round."""
    assert unit(1000, scan_doorbells, make_rig(contexts, polled=True).nic, 0, 1000) == 0


@pytest.mark.parametrize("contexts", [1, 32, 1024])
def test_ring(unit, make_rig, contexts):
    """The guests' side of a scan that finds so many: what to subtract."""
    n = times(contexts)
    assert unit(n, ring_doorbells, make_rig(max(32, contexts)).nic, contexts, n) == contexts
