"""MAC addresses of contexts that were given none: of the NIC and the guest, or of the context alone."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from cdna.machine import Machine
from cdna.vmm import addresses


def macs(names: list[str], identity: str | None, **settings: str) -> list[str]:
    with_rings = {"tx_ring": 8, "rx_ring": 8, "buffer_size": 64}
    machine = Machine(16 << 20, contexts=max(4, len(names)), identity=identity)
    try:
        return [machine.attach(name, **with_rings, **settings).context.mac for name in names]
    finally:
        machine.close()


def test_without_an_identity_the_address_tells_the_context() -> None:
    assert macs(["a", "b"], None) == ["02:cd:0a:00:00:00", "02:cd:0a:00:00:01"]


def test_addresses_of_two_nics_differ_and_stay_the_same_over_restarts() -> None:
    names = [f"g{i}" for i in range(200)]
    one, other = macs(names, "/run/one.sock"), macs(names, "/run/other.sock")
    assert macs(names, "/run/one.sock") == one
    assert len({*one, *other}) == 400


def test_addresses_are_local_ones_of_single_stations() -> None:
    for mac in macs([f"g{i}" for i in range(100)], "x"):
        assert int(mac[:2], 16) & 0x0F == 0x02  # locally administered, unicast, IEEE 802c's AAI quadrant


def test_a_guest_that_comes_back_on_another_context_has_its_address_again() -> None:
    first, second = macs(["a", "b"], "x")
    assert macs(["b", "a"], "x") == [second, first]


def test_an_address_that_another_guest_has_is_not_given_out_again() -> None:
    (mac,) = macs(["a"], "x")
    machine = Machine(identity="x")
    machine.attach("other", mac=mac)
    given = machine.attach("a").context.mac
    assert given != mac
    assert int(given[:2], 16) & 0x0F == 0x02
    machine.close()


@pytest.fixture
def machine_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where this machine's id is looked for: files that are not there yet."""
    files = [tmp_path / "machine-id", tmp_path / "boot_id"]
    monkeypatch.setattr(addresses, "MACHINE_IDS", tuple(map(str, files)))
    return files


def test_machines_differ(machine_ids: list[Path]) -> None:
    machine_ids[0].write_text("0123456789abcdef0123456789abcdef\n")
    one = macs(["a"], "x")
    machine_ids[0].write_text("0123456789abcdef0123456789abcdee\n")
    assert macs(["a"], "x") != one


def test_containers_of_one_machine_id_differ_by_host_name(
    machine_ids: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine_ids[0].write_text("0123456789abcdef0123456789abcdef\n")
    seen = []
    for name in ("web-1", "web-2"):
        monkeypatch.setattr(os, "uname", lambda name=name: SimpleNamespace(nodename=name))
        seen += macs(["a"], "x")
    assert len(set(seen)) == 2


@pytest.mark.parametrize("text", [None, "", "uninitialized\n", "0" * 32 + "\n"])
def test_without_a_machine_id_the_start_of_the_machine_tells_it_apart(
    machine_ids: list[Path], text: str | None
) -> None:
    if text is not None:
        machine_ids[0].write_text(text)
    seen = []
    for boot in ("01234567-89ab-cdef-0123-456789abcdef", "01234567-89ab-cdef-0123-456789abcdee"):
        machine_ids[1].write_text(boot + "\n")
        seen += macs(["a"], "x")
    assert len(set(seen)) == 2


def test_without_any_id_there_are_addresses_all_the_same(machine_ids: list[Path]) -> None:
    assert all(a != b for a, b in itertools.combinations(macs(["a", "b", "c"], "x"), 2))
