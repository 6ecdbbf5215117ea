"""Page tables, M2P and reservations: checked, counted, and nothing lost."""

import pytest
from tests.support.xen_parts import PseudoPhysical, heap_pages, m2p, p2m, pages_of, pte

from cdna.compare.paths.xen3.domain import Hypervisor
from cdna.errors import ConfigError
from cdna.memory import Memory
from tests.support.xen import xen

PRESENT = 3


@pytest.fixture
def tables(hypervisor: Hypervisor) -> PseudoPhysical:
    return PseudoPhysical(hypervisor, 0)


def test_a_mapping_moves_a_reference(hypervisor: Hypervisor, tables: PseudoPhysical) -> None:
    first, second = p2m(hypervisor, 0, 0), p2m(hypervisor, 0, 1)
    assert tables.update_va_mapping(1, 0) == 0
    assert tables.update_va_mapping(0, second << 12 | PRESENT) == 0
    assert hypervisor.memory.pins()[[first, second]].tolist() == [0, 1]
    assert pte(hypervisor, 0, 0) >> 12 == second


def test_a_mapping_of_a_foreign_page_is_refused(hypervisor: Hypervisor, tables: PseudoPhysical) -> None:
    for frame in (p2m(hypervisor, 1, 0), hypervisor.memory.pages):
        assert tables.update_va_mapping(8, frame << 12 | PRESENT) == xen.XEN_EINVAL
    assert tables.update_va_mapping(16, p2m(hypervisor, 0, 0) << 12 | PRESENT) == xen.XEN_EINVAL
    assert pte(hypervisor, 0, 8) == 0


def test_m2p_is_written_by_the_owner_alone(hypervisor: Hypervisor, tables: PseudoPhysical) -> None:
    assert tables.set_m2p(p2m(hypervisor, 0, 2), 77) == 0
    assert m2p(hypervisor, p2m(hypervisor, 0, 2)) == 77
    assert tables.set_m2p(p2m(hypervisor, 1, 2), 77) == xen.XEN_EINVAL
    assert tables.set_m2p(hypervisor.memory.pages, 0) == xen.XEN_EINVAL


def test_pages_go_to_the_heap_and_come_back(hypervisor: Hypervisor, tables: PseudoPhysical) -> None:
    frame = p2m(hypervisor, 0, 2)
    assert tables.decrease_reservation(frame) == 0  # mapped: not taken
    tables.update_va_mapping(2, 0)
    assert tables.decrease_reservation(frame) == 1
    assert (pages_of(hypervisor, 0), heap_pages(hypervisor), hypervisor.memory.owners()[frame]) == (7, 17, 0)
    assert tables.decrease_reservation(frame) == 0  # no longer ours
    assert tables.increase_reservation(1) == [frame]
    assert (pages_of(hypervisor, 0), heap_pages(hypervisor)) == (8, 16)


def test_a_reservation_ends_at_the_domains_limit(hypervisor: Hypervisor, tables: PseudoPhysical) -> None:
    assert len(tables.increase_reservation(10)) == 4  # its headroom
    assert pages_of(hypervisor, 0) == 12


def test_a_reservation_ends_with_the_heap() -> None:
    hypervisor = Hypervisor(Memory(16 * 4096), heap_pages=2)
    hypervisor.add_domain(3, 4, headroom=8)
    assert len(PseudoPhysical(hypervisor, 0).increase_reservation(8)) == 2


def test_release_gives_every_page_back(hypervisor: Hypervisor, tables: PseudoPhysical) -> None:
    tables.update_va_mapping(2, 0)
    tables.decrease_reservation(p2m(hypervisor, 0, 2))
    # What a guest gave up, it also strikes from its own table; here the domain's table still names the frame.
    hypervisor.release()
    assert hypervisor.memory.free_pages == hypervisor.memory.pages
    assert not hypervisor.memory.pins().any()


def test_domain_ids_are_checked(hypervisor: Hypervisor) -> None:
    for domid in (0, 7, 0x7FF0):
        with pytest.raises(ConfigError, match="domain id"):
            hypervisor.add_domain(domid, 1)
