"""Machine memory: one mapping of 4 KiB pages, a frame table, and regions that processes share."""
# build: control

import fcntl
import os
from operator import index

cimport cython
from libc.string cimport memset
from posix.unistd cimport close
from posix.mman cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE, mmap,
    munmap,
)

from cdna.abi cimport PAGE_SHIFT, PAGE_SIZE
from cdna.sanitizer cimport allow

from cdna.errors import ConfigError, ResourceError

import numpy as np


cdef extern from "<sys/mman.h>" nogil:
    int MAP_NORESERVE

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_MAX_SIZE = 1 << 40


cdef uint8_t *_map(void *at, size_t size, int fd, int flags) except NULL:
    cdef void *base = mmap(at, size, PROT_READ | PROT_WRITE, flags | MAP_SHARED | MAP_NORESERVE, fd, 0)
    if base == MAP_FAILED:
        raise ResourceError(f"cannot map {size} bytes of shared memory; give a smaller size")
    return <uint8_t *>base


cdef uint8_t *map_guarded(size_t size, int fd, int flags) except NULL:
    """`size` bytes, whole pages, between two that nobody may touch: who runs over an end is stopped there."""
    cdef void *base = mmap(NULL, size + 2 * PAGE_SIZE, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if base == MAP_FAILED:
        raise ResourceError(f"cannot map {size} bytes of shared memory; give a smaller size")
    try:
        return _map(<uint8_t *>base + PAGE_SIZE, size, fd, flags | MAP_FIXED)
    except ResourceError:
        munmap(base, size + 2 * PAGE_SIZE)
        raise


cdef void unmap_guarded(uint8_t *base, size_t size) noexcept:
    allow(base, size)
    munmap(base - PAGE_SIZE, size + 2 * PAGE_SIZE)


cdef class SharedRegion:
    """`size` bytes of zeroed memory, page aligned, that forked processes share at the same address."""

    def __cinit__(self, size_t size):
        self.size = (size + PAGE_SIZE - 1) & ~<size_t>(PAGE_SIZE - 1)
        self.base = map_guarded(self.size, -1, MAP_ANONYMOUS)

    def __dealloc__(self):
        if self.base != NULL:
            unmap_guarded(self.base, self.size)

    def view(self):
        """The region as a writable numpy array of bytes; it keeps the region alive."""
        cdef uint8_t[::1] bytes_ = <uint8_t[:self.size]>self.base
        return _owned_array(bytes_, self)


def _copy_to_file(fd, data):
    """Writes all of `data` at the start of a file; one call writes 2 GiB at most."""
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], done)


def _owned_array(memory, owner):
    """A numpy view of a memoryview whose bytes belong to `owner`, which the view keeps alive."""
    holder = _Holder(memory, owner)
    return np.asarray(holder)


cdef class _Holder:
    cdef object _memory
    cdef object _owner

    def __init__(self, memory, owner):
        self._memory = memory
        self._owner = owner

    @property
    def __array_interface__(self):
        return np.asarray(self._memory).__array_interface__


@cython.no_gc_clear     # __dealloc__ reads the table
cdef class Memory:
    """Machine memory of `size` bytes, rounded up to whole pages.

    Machine address 0 is the first byte. Every page has an owner (a domain id) and a count of pins. A range
    can be given a memory file of its own, so that another process maps that range and nothing else.
    """

    def __cinit__(self, size):
        if not PAGE_SIZE <= index(size) <= _MAX_SIZE:
            raise ConfigError(f"memory of {size} bytes: give between {PAGE_SIZE} and {_MAX_SIZE}")
        cdef uint32_t pages = (size + PAGE_SIZE - 1) >> PAGE_SHIFT
        self._table = SharedRegion(sizeof(memory_t) + pages * sizeof(page_t) + PAGE_SIZE)
        self.c = <memory_t *>self._table.base
        self.c.page = <page_t *>(self._table.base + PAGE_SIZE)
        self.c.pages = pages
        self.c.size = <uint64_t>pages << PAGE_SHIFT
        self.fd = os.memfd_create("cdna-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.c.size)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
        self.c.base = map_guarded(self.c.size, self.fd, 0)
        self._exported = {}
        cdef uint32_t i
        for i in range(pages):
            self.c.page[i].owner = DOMID_FREE

    def __dealloc__(self):
        if self.c != NULL and self.c.base != NULL:
            unmap_guarded(self.c.base, self.c.size)
        if self.fd > 0:
            close(self.fd)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.c.size

    @property
    def pages(self) -> int:
        return self.c.pages

    @property
    def free_pages(self) -> int:
        """Pages that nobody owns."""
        cdef uint32_t i, n = 0
        for i in range(self.c.pages):
            n += self.c.page[i].owner == DOMID_FREE
        return n

    def owners(self):
        """The owner of each page: numpy view of `pages` domain ids, without a copy."""
        return self._frame_table()["owner"]

    def pins(self):
        """The pins of each page: numpy view of `pages` counts, without a copy."""
        return self._frame_table()["pins"]

    def _frame_table(self):
        cdef uint8_t[::1] table = <uint8_t[:self.c.pages * sizeof(page_t)]><uint8_t *>self.c.page
        array = _owned_array(table, self).view(np.dtype([("owner", "u4"), ("pins", "u4")]))
        array.flags.writeable = False
        return array

    def view(self, maddr, size):
        """Bytes [maddr, maddr + size) as a writable numpy array, without a copy."""
        self._check_range(maddr, size)
        cdef uint8_t[::1] bytes_ = <uint8_t[:<size_t>size]>(self.c.base + <size_t>maddr)
        return _owned_array(bytes_, self)

    def _check_range(self, maddr, size):
        if not 0 <= index(maddr) < index(maddr) + index(size) <= self.c.size:
            raise ConfigError(
                f"machine addresses {maddr:#x} to {maddr + size:#x}: memory ends at {self.c.size:#x}")

    cdef uint64_t find_free(self, uint32_t pages) except? 0xFFFFFFFFFFFFFFFF:
        cdef uint32_t i, run = 0
        for i in range(self.c.pages):
            run = run + 1 if self.c.page[i].owner == DOMID_FREE and self.c.page[i].pins == 0 else 0
            if run == pages:
                return i + 1 - pages
        raise ResourceError(
            f"{pages} contiguous pages wanted, {self.free_pages} of {self.c.pages} are free: "
            f"give the machine more memory or the guest less")

    def allocate(self, uint32_t pages, uint32_t owner) -> int:
        """Gives `pages` contiguous free pages, zeroed, to `owner`; returns the first page's number."""
        if pages == 0:
            raise ConfigError("0 pages wanted: give at least 1")
        cdef uint64_t first = self.find_free(pages)
        cdef uint32_t i
        memset(self.c.base + (first << PAGE_SHIFT), 0, <size_t>pages << PAGE_SHIFT)
        for i in range(pages):
            self.c.page[first + i].owner = owner
        return first

    def release(self, uint32_t owner) -> int:
        """Frees every page of `owner`, none of which may be pinned; returns how many."""
        cdef uint32_t i, n = 0
        for i in range(self.c.pages):
            if self.c.page[i].owner == owner and self.c.page[i].pins:
                raise ResourceError(
                    f"page {i} of domain {owner} has {self.c.page[i].pins} pins: revoke its contexts")
        # Before the pages are anybody's to take: the process of the old owner still maps them.
        for first in [first for first, export in self._exported.items() if export[2] == owner]:
            self._take_back(first)
        for i in range(self.c.pages):
            if self.c.page[i].owner == owner:
                self.c.page[i].owner = DOMID_FREE
                n += 1
        return n

    def export(self, uint32_t first, uint32_t pages) -> int:
        """A memory file that holds these pages and nothing else, for the process of their owner.

        The pages keep their machine addresses and their contents. The file can neither shrink nor grow.
        Returns a file descriptor that belongs to this object.
        """
        cdef uint64_t maddr = <uint64_t>first << PAGE_SHIFT, size = <uint64_t>pages << PAGE_SHIFT
        self._check_range(maddr, size)
        cdef uint32_t i
        if first in self._exported:
            return self._exported[first][0]
        for i in range(first, first + pages):
            if self.c.page[i].owner != self.c.page[first].owner:
                raise ConfigError(f"page {i} is not of page {first}'s domain: export the pages of one")
        fd = os.memfd_create("cdna-guest", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)
            _copy_to_file(fd, memoryview(<uint8_t[:size]>(self.c.base + maddr)))
            _map(self.c.base + maddr, size, fd, MAP_FIXED)
        except BaseException:
            os.close(fd)
            raise
        self._exported[first] = (fd, pages, self.c.page[first].owner)
        return fd

    def is_exported(self, uint32_t page) -> bool:
        """Whether a process maps this page by a file of `export`."""
        return any(first <= page < first + export[1] for first, export in self._exported.items())

    def _take_back(self, uint32_t first):
        """Puts the machine's own memory back where an exported file was mapped: its process keeps a copy."""
        fd, pages, _ = self._exported.pop(first)
        cdef uint64_t maddr = <uint64_t>first << PAGE_SHIFT, size = <uint64_t>pages << PAGE_SHIFT
        cdef void *base = mmap(self.c.base + maddr, size, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_NORESERVE | MAP_FIXED, self.fd, maddr)
        if base == MAP_FAILED:
            raise ResourceError("cannot map machine memory back")
        os.close(fd)
