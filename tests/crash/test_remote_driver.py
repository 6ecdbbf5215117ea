"""A VMM that dies while a guest attaches: the guest's process keeps nothing of it."""

import pytest

from cdna import RemoteDriver, ResourceError
from tests.support.remote_host import Host, descriptors


def test_a_driver_that_cannot_post_its_buffers(tmp_path, monkeypatch):
    host = Host(tmp_path / "vmm")
    before = descriptors()

    def refill(self):
        raise ResourceError("the VMM has ended")

    monkeypatch.setattr(RemoteDriver, "refill", refill)
    with pytest.raises(ResourceError) as kept:
        RemoteDriver(host.path, name="guest")
    host.settle()
    assert descriptors() == before  # although `kept` holds the driver
    del kept
    host.machine.close()
