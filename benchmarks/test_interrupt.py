"""Interrupt bit vectors: an operation is a vector, the NIC's side and the VMM's."""

import pytest
from benchmarks.units import decode_vectors, raise_vectors

from cdna.nic.device import VECTORS

pytestmark = pytest.mark.benchmark(group="interrupt", max_time=0.2)

sizes = pytest.mark.parametrize("contexts", [32, 1024])
bits = pytest.mark.parametrize("updated", ["one", "all"])


@sizes
@bits
def test_decode(unit, make_rig, contexts, updated):
    """The VMM's side, with a function that counts where a virtual interrupt would be posted."""
    rig = make_rig(contexts)
    n = 1 if updated == "one" else contexts
    assert raise_vectors(rig.nic, n, 1) == 1
    assert unit(VECTORS, decode_vectors, rig.tables, VECTORS) == VECTORS * n


@sizes
@bits
def test_raise(unit, make_rig, contexts, updated):
    """The NIC's side, the contexts marked as updated in the same time."""
    n = 1 if updated == "one" else contexts
    assert unit(VECTORS, raise_vectors, make_rig(contexts).nic, n, VECTORS) == VECTORS
