"""TCP with every pair of device properties: offloads, buffers, ring formats. A guest is plugged anew each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cdna.virtio import Feature
from cdna.vm.machine import VirtualMachine
from tests.support.pairwise import Row, pairwise
from tests.support.vm import (
    Lan,
    features,
    guest_hash,
    host_hash,
    host_services,
    iperf3,
    needs_vm,
    parts_hash,
)

pytestmark = [needs_vm, pytest.mark.timeout(300)]

MIB = 4
# What the device offers to do with what the guest sends, and what the guest takes undone. TCP4, TCP6, UDP.
NO_TSO = {"host_tso4": False, "host_tso6": False, "host_ecn": False, "host_ufo": False}
NO_LRO = {"guest_tso4": False, "guest_tso6": False, "guest_ecn": False, "guest_ufo": False}
SEND: dict[str, dict[str, bool]] = {
    "send as it is": {"csum": False, **NO_TSO},
    "send checksum": NO_TSO,
    "send segments": {},
}
TAKE: dict[str, dict[str, bool]] = {
    "take as it is": {"guest_csum": False, **NO_LRO},
    "take checksum": NO_LRO,
    "take segments": {},
}
ROWS = pairwise(
    {
        "send": list(SEND),
        "take": list(TAKE),
        "mrg_rxbuf": [True, False],
        "packed": [False, True],
        "indirect_desc": [True, False],
        "event_idx": [True, False],
    }
)
BITS = {
    "mrg_rxbuf": Feature.VIRTIO_NET_F_MRG_RXBUF,
    "packed": Feature.VIRTIO_F_RING_PACKED,
    "indirect_desc": Feature.VIRTIO_F_INDIRECT_DESC,
    "event_idx": Feature.VIRTIO_F_EVENT_IDX,
}


def _name(row: Row) -> str:
    flags = [name if value else f"no {name}" for name, value in row.items() if isinstance(value, bool)]
    return ", ".join([row["send"], row["take"], *flags])


@pytest.fixture(scope="module")
def lan(
    alice_and_bob: tuple[VirtualMachine, VirtualMachine], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lan]:
    with Lan("alice", "bob", number=2) as lan:
        lan.give_host_address()
        lan.plug(alice_and_bob[1])
        with host_services(lan.host, tmp_path_factory.mktemp("www")):
            yield lan


@pytest.mark.parametrize("row", ROWS, ids=_name)
def test_tcp_both_ways(lan: Lan, alice_and_bob: tuple[VirtualMachine, VirtualMachine], row: Row) -> None:
    alice, _ = alice_and_bob
    properties: dict[str, Any] = {**SEND[row["send"]], **TAKE[row["take"]]}
    properties |= {name: row[name] for name in BITS}
    lan.plug(alice, **properties)
    try:
        has = features(alice)
        assert {name: bit in has for name, bit in BITS.items()} == {name: row[name] for name in BITS}
        assert (Feature.VIRTIO_NET_F_HOST_TSO4 in has) == (row["send"] == "send segments")
        assert (Feature.VIRTIO_NET_F_GUEST_TSO4 in has) == (row["take"] == "take segments")
        assert iperf3(alice, lan.address("bob"), mib=MIB)
        assert iperf3(alice, lan.address("bob", 6), "-6 -R", mib=MIB)
        assert guest_hash(alice, lan.address("host"), MIB) == parts_hash(MIB)
        assert host_hash(lan.host, lan.address("alice"), MIB) == parts_hash(MIB)
    finally:
        lan.unplug(alice)


def test_every_pair_of_properties_is_there() -> None:
    for row in ROWS:
        assert set(row) == {"send", "take", *BITS}
    pairs = {frozenset([a, b]) for row in ROWS for a in row.items() for b in row.items() if a[0] != b[0]}
    assert len(pairs) == 3 * 3 + 2 * 3 * (4 * 2) + 6 * 4
