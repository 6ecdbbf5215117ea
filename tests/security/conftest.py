"""Scenes for the catalogue of docs/security.md; at the end of each test nothing of its guests is held."""

import gc
import logging

import pytest

from cdna.compare.paths.xen3.domain import Hypervisor
from cdna.memory import Memory
from tests.support.attack import NativeAttack, VirtioAttack
from tests.support.control_driver import ControlDriver
from tests.support.vhost_host import VhostHost
from tests.support.xen import ALICE, BOB, build_bench


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
def attack(host):
    """Makes the scene of a virtio guest that attacks: `VirtioAttack`."""
    return lambda *args, **options: VirtioAttack(host, *args, **options)


@pytest.fixture
def control():
    """Makes the control queue's driver for the offender of a scene."""
    drivers = []

    def make(scene):
        drivers.append(ControlDriver(scene.host, scene.offender, scene.bad).start())
        return drivers[-1]

    yield make
    for driver in drivers:
        driver.close()


@pytest.fixture
def native():
    """Makes the scene of a native guest that attacks: `NativeAttack`."""
    scenes = []

    def make(*args, **options):
        scenes.append(NativeAttack(*args, **options))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.close()


@pytest.fixture
def xen_domains():
    """Two domains of a Xen hypervisor, with room for many mappings."""
    hypervisor = Hypervisor(Memory(64 * 4096), heap_pages=16)
    for domid in (ALICE, BOB):
        hypervisor.add_domain(domid, 8, 300, grant_entries=16, maptracks=300, ports=8, headroom=4)
    return hypervisor


@pytest.fixture
def bridge():
    """Makes a Xen bridge whose first guest misbehaves: `tests.support.xen.Bench`."""
    built = []

    def make(*args, **options):
        built.append(build_bench(*args, **options))
        return built[-1]

    yield make
    for bench in built:
        bench.close()
        bench.machine.close()
