"""The whole path, frame by frame: every byte of every frame is checked at its end."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.support.xen_parts import counters, m2p, p2m, pages_of, pte

from cdna.errors import ConfigError
from tests.support.xen import PEER, Bench, build_bench, guest_mac

SIZES = [60, 64, 65, 1514, 4096, 4097, 9018, "imix"]
Build = Callable[..., Bench]


def total_pages(bench: Bench) -> int:
    pages = bench.bridge.pages()
    return int(pages["heap"] + pages["driver_domain"] + sum(pages["guests"]))


def assert_nothing_lost(bench: Bench) -> None:
    counts = bench.bridge.counts()
    assert (counts["bad"], counts["dropped"], counts["tx_errors"]) == (0, 0, 0)
    assert bench.bridge.bad_frames() == {}
    assert bench.wire.bad == 0, bench.wire.first_bad
    assert counters(bench.bridge.hypervisor)["grant_refusals"] == 0


@pytest.mark.parametrize("size", SIZES)
def test_frames_reach_the_wire(bench: Build, size: int | str) -> None:
    b = bench("tx", 3, size)
    b.steps(40)
    b.settle()
    counts = b.bridge.counts()
    assert counts["sent"] == counts["offered"] == b.wire.stats()["tx_frames"] > 0
    assert all(b.bridge.guest_stats(i)["sent"] > 0 for i in range(3))
    assert_nothing_lost(b)
    driver = b.bridge.driver_stats()
    assert driver["free_pending"] == 1024  # every request was unmapped and answered
    stats = counters(b.bridge.hypervisor)
    assert stats["grant_maps"] == stats["grant_unmaps"] + 2 * 3


@pytest.mark.parametrize("receive", ["copy", "flip"])
@pytest.mark.parametrize("size", SIZES)
def test_frames_reach_the_guests(bench: Build, size: int | str, receive: str) -> None:
    b = bench("rx", 3, size, receive=receive)
    before = total_pages(b)
    b.steps(150)
    b.settle()
    assert [b.bridge.guest_stats(i)["received"] for i in range(3)] == [200, 200, 200]
    assert_nothing_lost(b)
    assert total_pages(b) == before
    stats = counters(b.bridge.hypervisor)
    if receive == "flip":
        assert (stats["grant_copies"], stats["grant_transfers"] >= 600) == (0, True)
    else:
        assert (stats["grant_copies"] >= 600, stats["grant_transfers"]) == (True, 0)


def test_flipping_counts_pages_as_the_frame_table_does(bench: Build) -> None:
    b = bench("rx", 2, receive="flip", frames=500)
    for _ in range(60):
        b.steps(3)
        pages = b.bridge.pages()
        owners = b.machine.memory.owners()
        assert [int(np.sum(owners == 0x4000 + i)) for i in range(2)] == pages["guests"]
        assert int(np.sum(owners == 0)) == pages["heap"]
    assert b.bridge.counts()["received"] > 100


def test_flipped_pages_are_in_one_map_only(bench: Build) -> None:
    b = bench("rx", 1, receive="flip")
    b.steps(100)
    b.settle()
    xen = b.bridge.hypervisor
    frames = [p2m(xen, 1, pfn) for pfn in range(pages_of(xen, 1)) if p2m(xen, 1, pfn) is not None]
    assert len(set(frames)) == len(frames)
    for frame in frames:
        assert p2m(xen, 1, m2p(xen, frame)) == frame
        assert b.machine.memory.owners()[frame] == 0x4000
    mapped = [pfn for pfn in range(pages_of(xen, 0)) if pte(xen, 0, pfn)]
    assert len(mapped) > 1000
    assert all(m2p(xen, pte(xen, 0, pfn) >> 12) == pfn for pfn in mapped)  # the driver domain's pages, too


@pytest.mark.parametrize("receive", ["copy", "flip"])
@pytest.mark.parametrize("size", [60, 1514, 9018])
def test_guests_send_to_each_other(bench: Build, size: int, receive: str) -> None:
    b = bench("tx", 2, size, receive=receive, targets=[guest_mac(1), guest_mac(0)], rx_flows=[1, 0])
    before = total_pages(b)
    b.steps(40)
    b.settle()
    b.settle()
    stats = [b.bridge.guest_stats(i) for i in range(2)]
    assert stats[0]["received"] == stats[1]["offered"] > 0
    assert stats[1]["received"] == stats[0]["offered"] > 0
    assert b.wire.stats()["tx_frames"] == 0
    assert_nothing_lost(b)
    assert total_pages(b) == before


@pytest.mark.parametrize("receive", ["copy", "flip"])
def test_a_frame_to_nobody_known_is_flooded(bench: Build, receive: str) -> None:
    stranger = bytes([2, 9, 9, 9, 9, 9])
    b = bench("tx", 3, receive=receive, targets=[stranger, PEER, PEER])
    b.steps(20)
    b.settle()
    b.settle()
    flooded = b.bridge.driver_stats()["flooded"]
    assert flooded == b.bridge.guest_stats(0)["offered"] > 0
    assert b.bridge.guest_stats(0)["other"] == 0  # not back to the sender
    assert [b.bridge.guest_stats(i)["other"] for i in (1, 2)] == [flooded, flooded]
    assert b.wire.stats()["tx_frames"] == b.bridge.counts()["offered"]
    assert_nothing_lost(b)


@pytest.mark.parametrize("receive", ["copy", "flip"])
def test_a_flooded_page_is_flipped_to_one_guest_at_most(bench: Build, receive: str) -> None:
    """The last guest listens to a group address, which the bridge floods: each guest gets the whole frame."""
    group = bytes([3, 0, 0, 0, 1, 2])
    b = bench("rx", 3, receive=receive, frames=64, macs=[guest_mac(0), guest_mac(1), group])
    before = total_pages(b)
    b.steps(80)
    b.settle()
    stats = [b.bridge.guest_stats(i) for i in range(3)]
    assert [(s["received"], s["other"]) for s in stats] == [(64, 64), (64, 64), (64, 0)]
    assert_nothing_lost(b)
    assert total_pages(b) == before


def test_a_frame_for_its_own_port_goes_nowhere(bench: Build) -> None:
    b = bench("tx", 2, targets=[guest_mac(0), PEER])
    b.steps(20)
    b.settle()
    assert b.bridge.driver_stats()["not_forwarded"] == b.bridge.guest_stats(0)["sent"] > 0
    assert b.wire.stats()["tx_frames"] == b.bridge.guest_stats(1)["sent"]


def test_events_are_few(bench: Build) -> None:
    """A batch is announced once: far fewer hypercalls than frames."""
    b = bench("tx", 1)
    b.steps(60)
    b.settle()
    stats = counters(b.bridge.hypervisor)
    assert stats["hypercalls"] * 8 < b.bridge.counts()["sent"]


def test_a_drained_bridge_sleeps(bench: Build) -> None:
    b = bench("rx", 2)
    b.steps(100)
    b.settle()
    while b.bridge.run_once(interrupt=False):
        pass
    assert b.bridge.run_once(interrupt=False) == 0


# --- a hostile frontend -----------------------------------------------------------------------------------


def requests(ring: np.ndarray) -> np.ndarray:
    fields = [("gref", "u4"), ("offset", "u2"), ("flags", "u2"), ("id", "u2"), ("size", "u2")]
    return ring[64 : 64 + 256 * 12].view(np.dtype(fields))


@pytest.mark.parametrize(
    ("field", "value"),
    [("gref", 1000), ("gref", 2**32 - 1), ("offset", 4000), ("offset", 65535), ("size", 13), ("size", 65535),
     ("flags", 4 | 8), ("flags", 4)],
)  # fmt: skip
def test_a_bad_request_is_answered_with_an_error_and_harms_no_other(
    bench: Build, field: str, value: int
) -> None:
    b = bench("tx", 2)
    b.steps(3)
    b.settle()
    b.bridge.hold_phase(0)
    guilty = requests(b.bridge.tx_ring(0))
    b.bridge.run_guest(0)  # writes its requests, and sends its event
    guilty[field][:] = value
    b.steps(10)
    b.settle()
    vif = b.bridge.vif_stats(0)
    assert vif["tx_errors"] > 0
    innocent = b.bridge.guest_stats(1)
    assert (innocent["tx_errors"], innocent["sent"]) == (0, innocent["offered"])
    assert b.bridge.driver_stats()["free_pending"] == 1024
    assert b.machine.nic.info(0)["fault"] == 0


def test_a_wild_producer_index_closes_the_vif(bench: Build) -> None:
    b = bench("tx", 2)
    b.bridge.run_guest(0)
    b.bridge.tx_ring(0)[:4].view("u4")[0] += 1000
    b.steps(20)
    b.settle()
    assert b.bridge.vif_stats(0)["disabled"]
    assert not b.bridge.vif_stats(1)["disabled"]
    assert b.bridge.guest_stats(1)["sent"] > 0
    assert b.machine.nic.info(0)["fault"] == 0


# --- set-up -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"receive": "push"}, "flip or copy"),
        ({"pending": 8}, "64 to 16384"),
        ({"targets": [PEER]}, "give one for each"),
    ],
)
def test_settings_are_checked(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_bench("tx", 2, **options)


def test_everything_is_given_back(bench: Build) -> None:
    b = bench("rx", 2, receive="flip")
    b.steps(20)
    b.close()
    b.machine.vmm.destroy_guest(b.machine.vmm.guests["driver domain"])
    assert b.machine.memory.free_pages == b.machine.memory.pages
