"""A host of vhost-user guests; whatever frontends do, nothing of them is held when they have gone."""

import gc
import logging

import pytest

from tests.support.vhost_host import VhostHost


@pytest.fixture(scope="package", autouse=True)
def quick_collections():
    """Each test collects garbage, to see what is held; what was there before need not be looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def host(tmp_path, caplog):
    caplog.set_level(logging.INFO, "cdna")
    host = VhostHost(tmp_path)
    yield host
    try:
        host.clear()
    finally:
        host.close()


@pytest.fixture
def guest(host):
    return host.add()


@pytest.fixture
def frontend(host, guest):
    """A frontend that has connected and said nothing."""
    return host.connect(guest)
