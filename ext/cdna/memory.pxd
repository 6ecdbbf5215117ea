"""Machine memory: 4 KiB pages, each with an owner and a count of pins (the frame table)."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    DOMID_VMM = 0               # pages of the VMM itself
    DOMID_FREE = 0xFFFFFFFF     # pages of nobody

cdef struct page_t:
    uint32_t owner              # domain id
    uint32_t pins               # outstanding DMA, grants in use and IOMMU mappings

cdef struct memory_t:
    uint8_t *base               # where machine address 0 is mapped in this process
    uint64_t size               # bytes, a multiple of PAGE_SIZE
    uint32_t pages
    page_t *page                # the frame table: one entry a page

cdef class SharedRegion:
    """Zeroed memory that forked processes share at the same address."""
    cdef uint8_t *base
    cdef readonly size_t size

cdef class Memory:
    cdef memory_t *c
    cdef SharedRegion _table
    cdef readonly int fd
    cdef readonly object _exported
    cdef uint64_t find_free(self, uint32_t pages) except? 0xFFFFFFFFFFFFFFFF
