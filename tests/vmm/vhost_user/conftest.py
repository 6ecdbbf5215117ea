"""A host of vhost-user guests; whatever frontends do, nothing of them is held when they have gone."""

import gc
import logging

import pytest

from cdna import ContextSettings
from cdna.guest_driver.vhost_frontend import SPLIT
from tests.support.control_driver import ControlDriver
from tests.support.vhost_host import VhostHost


@pytest.fixture(scope="package", autouse=True)
def quick_collections():
    """Each test collects garbage, to see what is held; what was there before need not be looked at."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def host(tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "cdna")
    monkeypatch.setattr("cdna.logs.LINES", 10_000)  # each message has its line, and some tests send many
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


@pytest.fixture
def drivers():
    made = []
    yield made
    for driver in made:
        driver.close()


@pytest.fixture
def control(host, drivers):
    """Makes a guest with its control queue at the backend: (guest, attached, driver)."""

    def make(wanted=SPLIT, *, pairs=1, settings=None, name="guest", number=10, **options):
        address = f"02:00:00:00:00:{number:02x}"
        settings = ContextSettings(protection="table", **{"mac": address, **(settings or {})})
        guest = host.add(name, number, settings=settings, **options)
        attached = host.attach(guest, wanted, pairs=pairs)
        drivers.append(ControlDriver(host, guest, attached).start())
        return guest, attached, drivers[-1]

    return make
