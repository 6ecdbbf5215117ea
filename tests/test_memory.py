"""Machine memory: pages allocated, released, viewed, and exported to another process."""

import mmap
import os

import numpy as np
import pytest

from cdna.errors import ConfigError, ResourceError
from cdna.guests.hostile import RX, Hostile
from cdna.machine import Machine
from cdna.memory import Memory

PAGE = 4096


def test_sizes_are_rounded_up_to_pages():
    memory = Memory(PAGE + 1)
    assert (memory.size, memory.pages, memory.free_pages) == (2 * PAGE, 2, 2)


@pytest.mark.parametrize("size", [0, 1, PAGE - 1, 1 << 50])
def test_no_memory_of_an_impossible_size(size):
    with pytest.raises(ConfigError, match=f"^memory of {size} bytes: give between 4096 and"):
        Memory(size)


def test_allocated_pages_are_contiguous_owned_and_zeroed():
    memory = Memory(8 * PAGE)
    memory.view(0, memory.size)[:] = 0xFF
    assert memory.allocate(3, 7) == 0
    assert memory.allocate(2, 9) == 3
    assert memory.owners().tolist()[:5] == [7, 7, 7, 9, 9]
    assert memory.free_pages == 3
    assert not memory.view(0, 5 * PAGE).any()
    assert memory.view(5 * PAGE, 3 * PAGE).all()
    assert memory.release(7) == 3
    with pytest.raises(ResourceError, match="4 contiguous pages wanted, 6 of 8 are free"):
        memory.allocate(4, 1)  # there are three before domain 9, and three behind it
    assert memory.allocate(3, 1) == 0


def test_zero_pages_are_no_allocation():
    with pytest.raises(ConfigError, match="0 pages wanted"):
        Memory(PAGE).allocate(0, 1)


def test_a_view_is_the_memory_itself():
    memory = Memory(4 * PAGE)
    memory.view(PAGE, 4)[:] = [1, 2, 3, 4]
    assert memory.view(0, 2 * PAGE)[PAGE : PAGE + 4].tolist() == [1, 2, 3, 4]


def test_views_outlive_the_name_of_the_memory():
    view = Memory(PAGE).view(0, PAGE)
    view[:] = 1
    assert view.sum() == PAGE


@pytest.mark.parametrize(
    ("maddr", "size"), [(0, 0), (PAGE, 1), (PAGE - 1, 2), (2**64 - 1, 2), (1, 2**64 - 1)]
)
def test_no_view_reaches_outside(maddr, size):
    with pytest.raises(ConfigError, match="memory ends at 0x1000"):
        Memory(PAGE).view(maddr, size)


def test_the_frame_table_is_read_only_for_python():
    memory = Memory(PAGE)
    for table in (memory.owners(), memory.pins()):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 1


def test_pinned_pages_are_not_released():
    machine = Machine(1 << 20, contexts=2)
    mallory = Hostile(machine)
    mallory.post(RX, [(mallory.maddr(3), 2 * PAGE, 0)])
    page = mallory.guest.first_page + 3
    assert machine.memory.pins()[page : page + 3].tolist() == [1, 1, 0]
    with pytest.raises(ResourceError, match=f"page {page} of domain {mallory.guest.domain} has 1 pins"):
        machine.memory.release(mallory.guest.domain)
    assert machine.memory.owners()[page] == mallory.guest.domain
    machine.vmm.revoke(mallory.context)
    assert machine.memory.release(mallory.guest.domain) == 16
    machine.close()


def test_an_exported_range_is_shared_by_its_file_and_nothing_else_is():
    memory = Memory(8 * PAGE)
    first = memory.allocate(2, 5)
    neighbour = memory.allocate(1, 6)
    view = memory.view(first * PAGE, 2 * PAGE)
    view[:3] = [1, 2, 3]
    fd = memory.export(first, 2)
    assert os.fstat(fd).st_size == 2 * PAGE
    mapped = np.frombuffer(mmap.mmap(fd, 2 * PAGE), np.uint8)
    assert mapped[:3].tolist() == [1, 2, 3]
    mapped[PAGE] = 9
    assert view[PAGE] == 9
    view[0] = 8
    assert mapped[0] == 8
    memory.view(neighbour * PAGE, PAGE)[:] = 0x55
    assert not (mapped == 0x55).any()
    assert [memory.is_exported(page) for page in range(4)] == [True, True, False, False]
    assert memory.export(first, 2) == fd


def test_an_exported_file_can_neither_shrink_nor_grow():
    memory = Memory(2 * PAGE)
    fd = memory.export(memory.allocate(2, 5), 2)
    for size in (PAGE, 4 * PAGE):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)


def test_a_released_range_is_no_longer_the_files():
    memory = Memory(4 * PAGE)
    fd = memory.export(memory.allocate(2, 5), 2)
    mapped = np.frombuffer(mmap.mmap(fd, 2 * PAGE), np.uint8)
    memory.release(5)
    assert not memory.is_exported(0)
    first = memory.allocate(2, 6)
    memory.view(first * PAGE, 2 * PAGE)[:] = 0x77
    assert not mapped.any()  # what the old owner still maps
    mapped[:] = 1
    assert (memory.view(first * PAGE, 2 * PAGE) == 0x77).all()


def test_only_pages_of_one_owner_are_exported():
    memory = Memory(4 * PAGE)
    memory.allocate(1, 5)
    memory.allocate(1, 6)
    with pytest.raises(ConfigError, match="page 1 is not of page 0's domain"):
        memory.export(0, 2)
    with pytest.raises(ConfigError, match="memory ends at"):
        memory.export(3, 2)


def test_an_exported_page_is_not_given_away():
    machine = Machine(1 << 20, contexts=2)
    a, b = machine.vmm.create_guest("a", PAGE), machine.vmm.create_guest("b", PAGE)
    machine.memory.export(a.first_page, 1)
    with pytest.raises(ConfigError, match=f"page {a.first_page} is mapped by the process of 'a'"):
        machine.vmm.transfer([a.first_page], a, b)
    machine.close()
