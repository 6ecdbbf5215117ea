"""A guest moves from one QEMU to another while it downloads, and from one server to another."""

from __future__ import annotations

from pathlib import Path

import pytest

from cdna.vm.host import HostNetwork
from cdna.vm.machine import VirtualMachine
from tests.support.vm import (
    DEADLINE,
    Lan,
    fetch,
    host_services,
    needs_vm,
    parts_hash,
    reaches,
    wait_for,
)

pytestmark = [needs_vm, pytest.mark.timeout(300)]

MIB = 32


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
def test_between_servers_on_one_bridge(tmp_path: Path, packed: bool) -> None:
    """As between two hosts: a server each, whose wires are ports of one bridge that learns."""
    with (
        HostNetwork() as host,
        Lan("mover", number=5, host=host) as here,
        Lan(f"mover,mac={here.mac('mover')}", number=6, host=host) as there,
        VirtualMachine("mover", [here.nic("mover", packed=packed)]) as source,
        host_services(host, tmp_path),
    ):
        host.add_bridge()
        for lan in (here, there):
            host.add_to_bridge(lan.wire)
        here.give_host_address("br0")
        here.configure(source, "mover")
        assert reaches(source, here.address("host"))
        download = source.start(fetch(here.address("host"), MIB))
        wait_for(lambda: _received(source) > 4 << 20, "traffic")
        arriving = here.nic("mover", packed=packed)
        path = str(there.server.place / "mover")
        moved = type(arriving)(arriving.name, arriving.mac, arriving.queues, arriving.properties, path=path)
        with VirtualMachine("moved", [moved], incoming=True) as target:
            downtime = source.migrate_to(target)
            source.close()
            assert downtime < 10
            before = _received(target)
            wait_for(lambda: _received(target) > before, "traffic after the move")
            ended = target.result(download, DEADLINE, "the download")
            assert ended.output.strip() == parts_hash(MIB)
            host.run("ping", "-n", "-c", "1", "-w", "10", here.address("mover"))


def _received(guest: VirtualMachine) -> int:
    return int(guest.run("cat /sys/class/net/eth0/statistics/rx_bytes"))
