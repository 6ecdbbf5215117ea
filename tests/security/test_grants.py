"""The Xen baseline: grants, event channels, and what a frontend writes into the rings of its netback."""

import numpy as np
import pytest
from tests.support.xen_parts import EventChannels, GrantTable, PseudoPhysical, counters, p2m, pte

from tests.support.xen import ALICE, BOB, xen

WINDOW = 8  # the first entry of a page table that is empty
WRITE = xen.GNTMAP_host_map
READ = xen.GNTMAP_host_map | xen.GNTMAP_readonly
PRESENT, WRITABLE = 1, 2  # of a page-table entry


@pytest.fixture
def alice(xen_domains):
    return GrantTable(xen_domains, 0)


@pytest.fixture
def bob(xen_domains):
    return GrantTable(xen_domains, 1)


def pins(hypervisor, frame):
    return int(hypervisor.memory.pins()[frame]) - 1  # one is its owner's


# --- grants -------------------------------------------------------------------------------------------------


def test_an_unmap_of_what_was_never_mapped(xen_domains, alice, bob):
    """Twice, with another's handle, at another place: references are dropped that nobody had taken."""
    frame, other = p2m(xen_domains, 0, 3), p2m(xen_domains, 0, 4)
    alice.grant_access(5, BOB, frame)
    alice.grant_access(6, BOB, other)
    _, handle, maddr = bob.map(ALICE, 5, WINDOW)
    _, second, _ = bob.map(ALICE, 6, WINDOW + 1)
    for wrong, pfn, bus in (
        (299, WINDOW, 0),
        (300, WINDOW, 0),
        (2**32 - 1, WINDOW, 0),
        (second, WINDOW, 0),
        (handle, WINDOW + 1, 0),
        (handle, WINDOW + 2, 0),
        (handle, 2**40, 0),
        (handle, WINDOW, maddr + 4096),
    ):
        assert bob.unmap(wrong, pfn, bus) < 0
    assert (pins(xen_domains, frame), pins(xen_domains, other), bob.mapped) == (1, 1, 2)
    assert alice.unmap(handle, WINDOW) == xen.GNTST_bad_handle  # who has mapped it is not she
    assert bob.unmap(handle, WINDOW) == xen.GNTST_okay
    assert bob.unmap(handle, WINDOW) == xen.GNTST_bad_handle
    assert (pins(xen_domains, frame), pins(xen_domains, other), bob.mapped) == (0, 1, 1)


def test_a_grant_of_a_page_that_is_not_ones_own(xen_domains, alice, bob):
    """Bob would map his own page, or the hypervisor's, in her name; and read it when it is somebody's."""
    before = xen_domains.memory.pins().copy()
    for frame in (p2m(xen_domains, 1, 0), 0, xen_domains.memory.pages, 2**32 - 1):
        if xen_domains.memory.pages > frame and xen_domains.memory.owners()[frame] == ALICE:
            continue
        alice.poke(5, xen.GTF_permit_access, BOB, frame)
        for flags in (READ, WRITE):
            assert bob.map(ALICE, 5, WINDOW, flags)[0] == xen.GNTST_general_error
        here = (xen.DOMID_SELF, p2m(xen_domains, 1, 1), 0)
        assert bob.copy((ALICE, 5, 0), here, 64, xen.GNTCOPY_source_gref) < 0
    assert np.array_equal(before, xen_domains.memory.pins())
    assert pte(xen_domains, 1, WINDOW) == 0


def test_a_grant_that_changes_after_it_was_used(xen_domains, alice, bob):
    """The entry is the guest's to rewrite: what it said first holds until the last use has ended."""
    first, other = p2m(xen_domains, 0, 3), p2m(xen_domains, 0, 4)
    alice.grant_access(5, BOB, first)
    _, handle, _ = bob.map(ALICE, 5, WINDOW, READ)
    alice.poke(5, alice.entry(5)[0], BOB, other)
    assert bob.map(ALICE, 5, WINDOW + 1, READ)[2] == first * 4096
    alice.poke(5, 0, 99, p2m(xen_domains, 1, 0))  # and taken back, in use
    assert bob.unmap(handle, WINDOW) == xen.GNTST_okay
    assert (pins(xen_domains, first), pins(xen_domains, other)) == (1, 0)


def test_a_grant_mapped_more_often_than_it_is_counted(xen_domains, alice, bob):
    """Eight bits count the uses of each kind; a count that came around would be of a page in use."""
    frame = p2m(xen_domains, 0, 3)
    alice.grant_access(5, BOB, frame)
    statuses = [bob.map(ALICE, 5, WINDOW + i, READ)[0] for i in range(280)]
    taken = statuses.count(xen.GNTST_okay)
    assert statuses == [xen.GNTST_okay] * taken + [xen.GNTST_general_error] * (280 - taken)
    assert 100 < taken <= 128
    assert pins(xen_domains, frame) == bob.mapped == taken
    assert not alice.end_access(5)


def test_mappings_without_end(xen_domains, alice, bob):
    """The table of mappings is as long as it is, and a refusal takes nothing."""
    frames = [p2m(xen_domains, 0, i) for i in range(8)]
    for ref, frame in enumerate(frames):
        alice.grant_access(ref, BOB, frame)
    results = [bob.map(ALICE, i % 8, WINDOW + i % 292, WRITE)[0] for i in range(600)]
    assert results.count(xen.GNTST_okay) == bob.mapped == 292
    assert sum(pins(xen_domains, frame) for frame in frames) == 292
    assert set(results[292:]) <= {xen.GNTST_bad_virt_addr, xen.GNTST_no_device_space}


def test_a_read_only_grant_by_a_side_door(xen_domains, alice, bob):
    """Mapped for reading, and then written by a copy, or by a second mapping."""
    frame, own = p2m(xen_domains, 0, 3), p2m(xen_domains, 1, 0)
    alice.grant_access(5, BOB, frame, True)
    assert bob.map(ALICE, 5, WINDOW, READ)[0] == xen.GNTST_okay
    assert bob.map(ALICE, 5, WINDOW + 1, WRITE)[0] == xen.GNTST_general_error
    xen_domains.memory.view(own * 4096, 64)[:] = 7
    assert bob.copy((xen.DOMID_SELF, own, 0), (ALICE, 5, 0), 64, xen.GNTCOPY_dest_gref) < 0
    assert not xen_domains.memory.view(frame * 4096, 4096).any()
    assert pte(xen_domains, 1, WINDOW) & WRITABLE == 0


@pytest.mark.parametrize("offset", [0, 4033, 4096, 65535])
@pytest.mark.parametrize("length", [4097, 64, 65535])
def test_a_copy_across_the_end_of_a_page(xen_domains, alice, bob, offset, length):
    """Both offsets and the length are 16 bits, and their sum is more than a page."""
    frame, own = p2m(xen_domains, 0, 3), p2m(xen_domains, 1, 0)
    alice.grant_access(5, BOB, frame)
    xen_domains.memory.view(own * 4096, 4096)[:] = 7
    before = xen_domains.memory.view(0, 64 * 4096).copy()
    status = bob.copy((xen.DOMID_SELF, own, 0), (ALICE, 5, offset), length, xen.GNTCOPY_dest_gref)
    if (offset, length) == (0, 64):
        assert status == xen.GNTST_okay
        return
    assert status == xen.GNTST_bad_copy_arg
    assert np.array_equal(before, xen_domains.memory.view(0, 64 * 4096))


def test_a_transfer_of_a_page_in_use(xen_domains, alice, bob):
    """Its new owner would share it: with the one who gave it away, or with who has mapped the grant."""
    frame = p2m(xen_domains, 0, 7)
    bob.grant_transfer(2, ALICE, 9)
    assert alice.transfer(frame, BOB, 2) == xen.GNTST_bad_page  # her page table has it
    PseudoPhysical(xen_domains, 0).update_va_mapping(7, 0)
    alice.grant_access(5, BOB, frame)
    _, handle, _ = bob.map(ALICE, 5, WINDOW)
    assert alice.transfer(frame, BOB, 2) == xen.GNTST_bad_page
    assert bob.transfer(frame, ALICE, 2) == xen.GNTST_bad_page  # mapped is not owned
    assert xen_domains.memory.owners()[frame] == ALICE
    bob.unmap(handle, WINDOW)
    assert alice.transfer(frame, BOB, 2) == xen.GNTST_okay
    assert bob.map(ALICE, 5, WINDOW)[0] == xen.GNTST_general_error  # and the grant is void


def test_a_page_table_entry_for_anothers_page(xen_domains):
    """What a guest may not grant it may not map directly either."""
    tables = PseudoPhysical(xen_domains, 0)
    before = xen_domains.memory.pins().copy()
    for frame in (p2m(xen_domains, 1, 0), xen_domains.memory.pages, 2**40):
        entry = frame << 12 | PRESENT | WRITABLE
        assert tables.update_va_mapping(WINDOW, entry) < 0
    assert np.array_equal(before, xen_domains.memory.pins())
    assert pte(xen_domains, 0, WINDOW) == 0


def test_event_channels_of_others(xen_domains):
    """Ports that there are not, that are not bound, that are for somebody else."""
    alice, bob = EventChannels(xen_domains, 0), EventChannels(xen_domains, 1)
    for port in (0, 7, 8, 64, 2**31, 2**32 - 1):
        assert alice.send(port) < 0
        assert bob.bind_interdomain(ALICE, port) < 0
    mine = alice.alloc_unbound(99)
    assert bob.bind_interdomain(ALICE, mine) < 0
    assert alice.send(mine) < 0
    ports = [alice.alloc_unbound(BOB) for _ in range(20)]
    assert ports[6:] == [xen.XEN_ENOSPC] * 14  # of eight, port 0 is none and one is taken
    assert not bob.upcall_due


# --- netback ------------------------------------------------------------------------------------------------


def requests(ring):
    fields = [("gref", "u4"), ("offset", "u2"), ("flags", "u2"), ("id", "u2"), ("size", "u2")]
    return ring[64 : 64 + 256 * 12].view(np.dtype(fields))


def run_hostile(bridge, rewrite, size=1514):
    """Lets the first guest write its requests, rewrites them, and lets the bridge serve both guests."""
    bench = bridge("tx", 2, size)
    bench.steps(3)
    bench.settle()
    bench.bridge.hold_phase(0)
    mine = requests(bench.bridge.tx_ring(0))
    bench.bridge.run_guest(0)
    rewrite(bench, mine)
    bench.steps(10)
    bench.settle()
    return bench


def unharmed(bench):
    """The other guest has sent all; no request is pending, and the driver domain's NIC runs."""
    other = bench.bridge.guest_stats(1)
    assert (other["tx_errors"], other["sent"]) == (0, other["offered"])
    assert other["sent"] > 0
    driver = bench.bridge.driver_stats()
    assert driver["free_pending"] == 1024
    assert bench.machine.nic.info(0)["fault"] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"gref": 1000},
        {"gref": 2**32 - 1},
        {"offset": 4000},
        {"offset": 65535},
        {"size": 0},
        {"size": 13},
        {"size": 65535},
        {"offset": 4096, "size": 1},
    ],
    ids=lambda fields: ",".join(f"{k}={v}" for k, v in fields.items()),
)
def test_a_netback_request_that_cannot_be(bridge, fields):
    """It is answered with an error, and its grant is no bug of the backend's."""

    def rewrite(bench, mine):
        for field, value in fields.items():
            mine[field][:] = value

    bench = run_hostile(bridge, rewrite)
    assert bench.bridge.vif_stats(0)["tx_errors"] > 0
    assert not bench.bridge.vif_stats(0)["disabled"]
    unharmed(bench)


@pytest.mark.parametrize("size", [0, 1, 60, 1514])
def test_a_netback_frame_of_more_pieces_than_a_packet(bridge, size):
    """Every request says that another one follows: of nothing, of a byte, of a whole frame."""

    def rewrite(bench, mine):
        mine["flags"][:] = 4  # NETTXF_more_data
        mine["size"][1:] = size

    bench = run_hostile(bridge, rewrite)
    assert bench.bridge.vif_stats(0)["tx_errors"] > 0
    unharmed(bench)


def test_a_netback_header_in_several_pieces(bridge):
    """The first piece of two has 14 bytes, the second the rest: what the bridge looks at is a copy."""

    def rewrite(bench, mine):
        mine["flags"][0::2] = 4
        mine["size"][0::2] = 1514
        mine["size"][1::2] = 1500
        mine["flags"][1::2] = 0

    bench = run_hostile(bridge, rewrite)
    assert bench.bridge.vif_stats(0)["tx_errors"] == 0
    assert bench.wire.stats()["tx_frames"] == sum(bench.bridge.vif_stats(i)["tx_frames"] for i in range(2))
    unharmed(bench)


def test_a_netback_piece_of_nothing(bridge):
    """A frame whose second piece is empty: its page is mapped, and has to be let go all the same."""

    def rewrite(bench, mine):
        mine["flags"][0::2] = 4
        mine["flags"][1::2] = 0
        mine["size"][1::2] = 0

    bench = run_hostile(bridge, rewrite)
    stats = counters(bench.bridge.hypervisor)
    assert stats["grant_maps"] == stats["grant_unmaps"] + 2 * 2  # of each guest its two rings
    unharmed(bench)


@pytest.mark.parametrize("ahead", [257, 1000, 2**31, 2**32 - 300])
def test_a_netback_ring_with_wild_indices(bridge, ahead):
    """More requests than the ring holds: its vif is closed, the others are served."""

    def rewrite(bench, mine):
        word = bench.bridge.tx_ring(0)[:4].view("u4")
        word[0] = (int(word[0]) + ahead) % 2**32

    bench = run_hostile(bridge, rewrite)
    assert bench.bridge.vif_stats(0)["disabled"]
    assert not bench.bridge.vif_stats(1)["disabled"]
    assert bench.bridge.guest_stats(1)["sent"] > 0
    assert bench.machine.nic.info(0)["fault"] == 0
