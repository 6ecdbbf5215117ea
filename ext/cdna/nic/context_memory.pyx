"""The pages and native rings of all contexts, which their guests map.

Of each context: page, transmit ring, receive ring, completions, and a page that nobody may touch. A guest of
this process maps nothing; for one of another process they are moved to files of their own (`export`).
"""
# build: control

import os

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from posix.mman cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE, mmap, mprotect,
)

from cdna.abi cimport PAGE_SIZE, completion_t, desc_t
from cdna.memory cimport SharedRegion
from cdna.nic.files cimport move_to_file

from cdna.errors import ResourceError


cdef class ContextMemory:
    """Memory of `contexts` contexts, whose rings have `max_ring` descriptors at most."""

    def __init__(self, uint32_t contexts, uint32_t max_ring):
        cdef uint32_t i
        self._exports = {}
        self.extent = PAGE_SIZE + ring_bytes(max_ring)
        self._stride = self.extent + PAGE_SIZE
        self._region = SharedRegion(contexts * self._stride)
        for i in range(contexts):
            if mprotect(self.page(i) + self.extent, PAGE_SIZE, PROT_NONE):
                raise ResourceError(f"cannot protect the pages of {contexts} contexts: give the NIC fewer")

    cdef uint8_t *page(self, uint32_t index) noexcept:
        return self._region.base + index * self._stride

    def view(self, uint32_t index, uint64_t start, uint64_t size):
        """Bytes of a context from `start` on, without a copy."""
        start += index * self._stride
        return self._region.view()[start:start + size]

    def export(self, uint32_t index, bint writable_rings):
        """See `Nic.export`. The engine stands still."""
        cdef uint8_t *page = self.page(index)
        page_fd = move_to_file(page, PAGE_SIZE, True)
        try:
            rings_fd = move_to_file(page + PAGE_SIZE, self.extent - PAGE_SIZE, writable_rings)
        except BaseException:
            os.close(page_fd)
            raise
        self._exports[index] = page_fd, rings_fd
        return page_fd, rings_fd

    cdef take_back(self, uint32_t index):
        """Puts memory of the NIC's own back where a context's files were mapped. Needs no descriptor."""
        cdef void *base
        if index not in self._exports:
            return
        base = mmap(self.page(index), self.extent, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
        if base == MAP_FAILED:
            raise ResourceError(f"cannot take back the page of context {index}")
        for fd in self._exports.pop(index):
            os.close(fd)


cdef size_t ring_bytes(uint32_t ring) noexcept:
    cdef size_t size = ring * (2 * sizeof(desc_t) + sizeof(completion_t))
    return (size + PAGE_SIZE - 1) & ~<size_t>(PAGE_SIZE - 1)
