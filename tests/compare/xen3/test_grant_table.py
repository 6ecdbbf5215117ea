"""Grants: what they allow, what every operation refuses, and what stays behind."""

import numpy as np
import pytest
from tests.support.xen_parts import GrantTable, PseudoPhysical, heap_pages, p2m, pages_of, pte

from cdna.compare.paths.xen3.domain import Hypervisor
from tests.support.xen import ALICE, BOB, xen

WINDOW = 8  # first empty entry of a page table
WRITE = xen.GNTMAP_host_map
READ = xen.GNTMAP_host_map | xen.GNTMAP_readonly


@pytest.fixture
def alice(hypervisor: Hypervisor) -> GrantTable:
    return GrantTable(hypervisor, 0)


@pytest.fixture
def bob(hypervisor: Hypervisor) -> GrantTable:
    return GrantTable(hypervisor, 1)


def pins(hypervisor: Hypervisor, frame: int) -> int:
    """References to a frame beyond its owner's own mapping."""
    return int(hypervisor.memory.pins()[frame]) - 1


def test_a_grant_is_mapped_and_unmapped(hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable) -> None:
    frame = p2m(hypervisor, 0, 3)
    alice.grant_access(5, BOB, frame)
    status, handle, maddr = bob.map(ALICE, 5, WINDOW)
    assert (status, maddr) == (xen.GNTST_okay, frame * 4096)
    assert pte(hypervisor, 1, WINDOW) >> 12 == frame
    assert (pins(hypervisor, frame), bob.mapped) == (1, 1)
    assert alice.entry(5)[0] == xen.GTF_permit_access | xen.GTF_reading | xen.GTF_writing
    assert bob.unmap(handle, WINDOW) == xen.GNTST_okay
    assert (pins(hypervisor, frame), bob.mapped, pte(hypervisor, 1, WINDOW)) == (0, 0, 0)
    assert alice.entry(5)[0] == xen.GTF_permit_access


def test_a_grant_in_use_cannot_be_ended(hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable) -> None:
    alice.grant_access(5, BOB, p2m(hypervisor, 0, 3))
    _, handle, _ = bob.map(ALICE, 5, WINDOW, READ)
    assert not alice.end_access(5)
    bob.unmap(handle, WINDOW)
    assert alice.end_access(5)
    assert bob.map(ALICE, 5, WINDOW)[0] == xen.GNTST_general_error


def test_marks_follow_the_last_writer_and_the_last_reader(
    hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable
) -> None:
    alice.grant_access(5, BOB, p2m(hypervisor, 0, 3))
    _, reader, _ = bob.map(ALICE, 5, WINDOW, READ)
    assert alice.entry(5)[0] == xen.GTF_permit_access | xen.GTF_reading
    _, writer, _ = bob.map(ALICE, 5, WINDOW + 1, WRITE)
    assert alice.entry(5)[0] == xen.GTF_permit_access | xen.GTF_reading | xen.GTF_writing
    bob.unmap(writer, WINDOW + 1)
    assert alice.entry(5)[0] == xen.GTF_permit_access | xen.GTF_reading
    bob.unmap(reader, WINDOW)
    assert alice.entry(5)[0] == xen.GTF_permit_access


def test_a_read_only_grant_is_not_written(hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable) -> None:
    alice.grant_access(5, BOB, p2m(hypervisor, 0, 3), True)
    assert bob.map(ALICE, 5, WINDOW, WRITE)[0] == xen.GNTST_general_error
    assert bob.map(ALICE, 5, WINDOW, READ)[0] == xen.GNTST_okay
    assert pte(hypervisor, 1, WINDOW) & 3 == 1  # present, not writable


@pytest.mark.parametrize(
    ("domid", "ref", "pfn", "flags", "status"),
    [
        (12, 5, WINDOW, WRITE, xen.GNTST_bad_domain),
        (ALICE, 16, WINDOW, WRITE, xen.GNTST_bad_gntref),
        (ALICE, 2**32 - 1, WINDOW, WRITE, xen.GNTST_bad_gntref),
        (ALICE, 6, WINDOW, WRITE, xen.GNTST_general_error),  # an empty entry
        (ALICE, 5, 0, WRITE, xen.GNTST_bad_virt_addr),  # a mapping is there
        (ALICE, 5, 16, WRITE, xen.GNTST_bad_virt_addr),  # behind the table
        (ALICE, 5, 2**63, WRITE, xen.GNTST_bad_virt_addr),
        (ALICE, 5, WINDOW, xen.GNTMAP_readonly, xen.GNTST_bad_gntref),  # mapped nowhere
    ],
)
def test_a_map_that_is_refused_changes_nothing(
    hypervisor: Hypervisor,
    alice: GrantTable,
    bob: GrantTable,
    domid: int,
    ref: int,
    pfn: int,
    flags: int,
    status: int,
) -> None:
    alice.grant_access(5, BOB, p2m(hypervisor, 0, 3))
    before = hypervisor.memory.pins().copy()
    assert bob.map(domid, ref, pfn, flags)[0] == status
    assert np.array_equal(before, hypervisor.memory.pins())
    assert (alice.entry(5)[0], bob.mapped) == (xen.GTF_permit_access, 0)


def test_a_grant_is_for_the_named_domain_alone(hypervisor: Hypervisor, alice: GrantTable) -> None:
    hypervisor.add_domain(11, 2, 4, maptracks=2)
    mallory = GrantTable(hypervisor, 2)
    alice.grant_access(5, BOB, p2m(hypervisor, 0, 3))
    assert mallory.map(ALICE, 5, 2)[0] == xen.GNTST_general_error


def test_a_guest_cannot_grant_what_it_does_not_own(
    hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable
) -> None:
    for frame in (p2m(hypervisor, 1, 0), hypervisor.memory.pages, 2**32 - 1):
        alice.grant_access(5, BOB, frame)
        assert bob.map(ALICE, 5, WINDOW)[0] == xen.GNTST_general_error
        assert alice.entry(5)[0] == xen.GTF_permit_access
        assert alice.end_access(5)


def test_a_grant_in_use_keeps_its_first_frame(
    hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable
) -> None:
    alice.grant_access(5, BOB, p2m(hypervisor, 0, 3))
    bob.map(ALICE, 5, WINDOW, READ)
    alice.poke(5, alice.entry(5)[0], BOB, p2m(hypervisor, 1, 0))
    assert bob.map(ALICE, 5, WINDOW + 1, READ)[2] == p2m(hypervisor, 0, 3) * 4096


def test_the_maptrack_table_has_an_end(hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable) -> None:
    alice.grant_access(5, BOB, p2m(hypervisor, 0, 3))
    handles = [bob.map(ALICE, 5, WINDOW + i)[1] for i in range(4)]
    assert sorted(handles) == [0, 1, 2, 3]
    assert bob.map(ALICE, 5, WINDOW + 4)[0] == xen.GNTST_no_device_space
    bob.unmap(handles[2], WINDOW + 2)
    assert bob.map(ALICE, 5, WINDOW + 4)[:2] == (xen.GNTST_okay, handles[2])


def test_an_unmap_names_its_own_mapping(hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable) -> None:
    alice.grant_access(5, BOB, p2m(hypervisor, 0, 3))
    alice.grant_access(6, BOB, p2m(hypervisor, 0, 4))
    _, handle, maddr = bob.map(ALICE, 5, WINDOW)
    bob.map(ALICE, 6, WINDOW + 1)
    assert bob.unmap(4, WINDOW) == xen.GNTST_bad_handle  # behind the table
    assert bob.unmap(2, WINDOW) == xen.GNTST_bad_handle  # free
    assert bob.unmap(handle, WINDOW, maddr + 4096) == xen.GNTST_bad_dev_addr
    assert bob.unmap(handle, WINDOW + 1) == xen.GNTST_bad_virt_addr  # another grant's
    assert bob.unmap(handle, WINDOW + 3) == xen.GNTST_bad_virt_addr  # nothing there
    assert bob.unmap(handle, 2**40) == xen.GNTST_bad_virt_addr
    assert bob.unmap(handle, WINDOW, maddr) == xen.GNTST_okay
    assert bob.unmap(handle, WINDOW) == xen.GNTST_bad_handle


# --- copy -------------------------------------------------------------------------------------------------


def page(hypervisor: Hypervisor, frame: int) -> np.ndarray:
    return hypervisor.memory.view(frame * 4096, 4096)


def test_a_copy_between_grants(hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable) -> None:
    source, dest = p2m(hypervisor, 1, 0), p2m(hypervisor, 0, 3)
    page(hypervisor, source)[100:164] = np.arange(64)
    alice.grant_access(5, BOB, dest)
    status = bob.copy((xen.DOMID_SELF, source, 100), (ALICE, 5, 4000), 64, xen.GNTCOPY_dest_gref)
    assert status == xen.GNTST_okay
    assert list(page(hypervisor, dest)[3999:4065]) == [0, *range(64), 0]
    assert alice.entry(5)[0] == xen.GTF_permit_access
    assert (pins(hypervisor, source), pins(hypervisor, dest)) == (0, 0)

    alice.grant_access(6, BOB, dest, True)
    assert bob.copy((ALICE, 6, 4000), (BOB, source, 0), 64, xen.GNTCOPY_source_gref) == xen.GNTST_okay
    assert list(page(hypervisor, source)[:64]) == list(range(64))


@pytest.mark.parametrize(
    ("source", "dest", "length", "flags", "status"),
    [
        ((xen.DOMID_SELF, "own", 4090), (ALICE, 5, 0), 7, 2, xen.GNTST_bad_copy_arg),
        ((xen.DOMID_SELF, "own", 0), (ALICE, 5, 4096), 1, 2, xen.GNTST_bad_copy_arg),
        ((xen.DOMID_SELF, "own", 65535), (ALICE, 5, 0), 2, 2, xen.GNTST_bad_copy_arg),
        ((xen.DOMID_SELF, "own", 0), (ALICE, 5, 65535), 65535, 2, xen.GNTST_bad_copy_arg),
        ((xen.DOMID_SELF, "hers", 0), (ALICE, 5, 0), 8, 2, xen.GNTST_bad_copy_arg),  # not ours
        ((xen.DOMID_SELF, 2**40, 0), (ALICE, 5, 0), 8, 2, xen.GNTST_bad_copy_arg),
        ((ALICE, "hers", 0), (ALICE, 5, 0), 8, 2, xen.GNTST_permission_denied),  # a frame without a grant
        ((xen.DOMID_SELF, "own", 0), (ALICE, "hers", 0), 8, 0, xen.GNTST_permission_denied),
        ((xen.DOMID_SELF, "own", 0), (ALICE, 6, 0), 8, 2, xen.GNTST_general_error),  # read only
        ((xen.DOMID_SELF, "own", 0), (ALICE, 7, 0), 8, 2, xen.GNTST_general_error),  # nothing granted
        ((xen.DOMID_SELF, "own", 0), (ALICE, 99, 0), 8, 2, xen.GNTST_bad_gntref),
        ((xen.DOMID_SELF, "own", 0), (13, 5, 0), 8, 2, xen.GNTST_bad_domain),
    ],
)
def test_a_copy_that_is_refused_changes_nothing(
    hypervisor: Hypervisor,
    alice: GrantTable,
    bob: GrantTable,
    source: tuple,
    dest: tuple,
    length: int,
    flags: int,
    status: int,
) -> None:
    frames = {"own": p2m(hypervisor, 1, 0), "hers": p2m(hypervisor, 0, 3)}
    page(hypervisor, frames["own"])[:] = 1
    alice.grant_access(5, BOB, frames["hers"])
    alice.grant_access(6, BOB, frames["hers"], True)
    before = hypervisor.memory.pins().copy()
    source, dest = ((d, frames.get(f, f), o) for d, f, o in (source, dest))
    assert bob.copy(source, dest, length, flags) == status
    assert not page(hypervisor, frames["hers"]).any()
    assert np.array_equal(before, hypervisor.memory.pins())
    assert alice.entry(5)[0] == xen.GTF_permit_access


# --- transfer ---------------------------------------------------------------------------------------------


@pytest.fixture
def loose(hypervisor: Hypervisor) -> int:
    """A page of Alice's that she has unmapped."""
    frame = p2m(hypervisor, 0, 7)
    assert PseudoPhysical(hypervisor, 0).update_va_mapping(7, 0) == 0
    return frame


def owners(hypervisor: Hypervisor) -> dict[int, int]:
    domids, counts = np.unique(hypervisor.memory.owners(), return_counts=True)
    return dict(zip(domids.tolist(), counts.tolist(), strict=True))


def test_a_page_is_transferred(
    hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable, loose: int
) -> None:
    bob.grant_transfer(2, ALICE, 9)
    assert alice.transfer(loose, BOB, 2) == xen.GNTST_okay
    assert hypervisor.memory.owners()[loose] == BOB
    assert (pages_of(hypervisor, 0), pages_of(hypervisor, 1)) == (7, 9)
    assert bob.end_transfer(2) == loose
    assert bob.entry(2)[0] == xen.GTF_invalid


def test_a_transfer_that_never_came_ends_without_a_page(bob: GrantTable) -> None:
    bob.grant_transfer(2, ALICE, 9)
    assert bob.end_transfer(2) is None
    assert bob.entry(2)[0] == xen.GTF_invalid


def test_a_mapped_page_is_not_transferred(hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable) -> None:
    bob.grant_transfer(2, ALICE, 9)
    frame = p2m(hypervisor, 0, 7)
    assert alice.transfer(frame, BOB, 2) == xen.GNTST_bad_page
    PseudoPhysical(hypervisor, 0).update_va_mapping(7, 0)
    alice.grant_access(5, BOB, frame)
    _, handle, _ = bob.map(ALICE, 5, WINDOW)
    assert alice.transfer(frame, BOB, 2) == xen.GNTST_bad_page  # granted, and in use
    bob.unmap(handle, WINDOW)
    assert alice.transfer(frame, BOB, 2) == xen.GNTST_okay


def test_a_foreign_page_is_not_transferred(
    hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable, loose: int
) -> None:
    alice.grant_transfer(2, BOB, 9)
    before = owners(hypervisor)
    for frame in (loose, hypervisor.memory.pages, 2**40):
        assert bob.transfer(frame, ALICE, 2) == xen.GNTST_bad_page
    assert owners(hypervisor) == before


@pytest.mark.parametrize(
    ("domid", "ref", "status"),
    [
        (13, 2, xen.GNTST_bad_domain),
        (BOB, 99, xen.GNTST_general_error),
        (BOB, 3, xen.GNTST_general_error),  # an access grant
        (BOB, 4, xen.GNTST_general_error),  # for somebody else
        (BOB, 5, xen.GNTST_general_error),  # used already
    ],
)
def test_a_page_that_the_receiver_refuses_goes_to_the_heap(
    hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable, loose: int, domid: int, ref: int, status: int
) -> None:
    bob.grant_access(3, ALICE, p2m(hypervisor, 1, 0))
    bob.grant_transfer(4, 13, 9)
    bob.poke(5, xen.GTF_accept_transfer | xen.GTF_transfer_committed, ALICE, 9)
    heap = heap_pages(hypervisor)
    assert alice.transfer(loose, domid, ref) == status
    assert hypervisor.memory.owners()[loose] == 0
    assert (pages_of(hypervisor, 0), pages_of(hypervisor, 1), heap_pages(hypervisor)) == (7, 8, heap + 1)
    assert bob.entry(3)[0] == xen.GTF_permit_access


def test_a_domain_takes_no_more_pages_than_its_limit(
    hypervisor: Hypervisor, alice: GrantTable, bob: GrantTable
) -> None:
    tables = PseudoPhysical(hypervisor, 0)
    for ref, pfn in enumerate(range(5)):  # its headroom is 4
        tables.update_va_mapping(pfn, 0)
        bob.grant_transfer(ref, ALICE, 9)
        status = alice.transfer(p2m(hypervisor, 0, pfn), BOB, ref)
        assert status == (xen.GNTST_okay if ref < 4 else xen.GNTST_general_error)
    assert pages_of(hypervisor, 1) == 12


def test_unknown_commands_are_refused(alice: GrantTable) -> None:
    assert alice.operation(xen.GNTTABOP_copy) == 0
    assert alice.operation(2) == xen.XEN_ENOSYS
