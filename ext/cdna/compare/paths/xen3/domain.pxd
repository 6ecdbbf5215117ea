"""What the hypervisor of the Xen baseline keeps of its domains.

Everything here is hypervisor memory; the words that guests share with it are in the module `public` and
are reached through the `shared` pointers. The frame table, with owners and references, is `cdna.memory`'s:
a page has a pin for each page-table entry that maps it and for each grant in use.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from cdna.abi cimport PAGE_SHIFT
from cdna.compare.paths.xen3.public cimport grant_entry_t, shared_info_t
from cdna.compare.host cimport MAX_DOMAINS, Host, host_t
from cdna.memory cimport Memory, SharedRegion, memory_t, page_t

cdef enum:
    DOMAIN_HASH = 256               # buckets of the hash by domain id
    NO_DOMAIN = 0xFFFFFFFF
    NO_HANDLE = 0xFFFFFFFF
    # active_grant_t.pin: four counts of eight bits, as in Xen's grant_table.h
    GNTPIN_hstw_inc = 0x00000001    # mapped or copied into by the host, writing
    GNTPIN_hstr_inc = 0x00000100    # the same, reading
    GNTPIN_hstw_mask = 0x000000FF
    GNTPIN_overflow = 0x80808080    # a count that may not grow

cdef struct active_grant_t:         # the hypervisor's record of a grant in use
    uint32_t pin
    uint32_t domid                  # who uses it
    uint32_t frame                  # as it was when first used; the guest's word is not looked at again
    uint32_t reserved

cdef struct maptrack_t:             # a mapping, in the table of the domain that made it
    uint32_t ref                    # the other's grant; of a free entry: the next free one
    uint16_t flags                  # GrantMap; 0: free
    uint16_t domid                  # the other
    uint32_t frame
    uint32_t reserved

cdef struct grant_table_t:
    grant_entry_t *shared           # in a guest's pages
    active_grant_t *active
    uint32_t entries
    uint32_t maptracks
    maptrack_t *maptrack
    uint32_t maptrack_head          # first free one, or NO_HANDLE
    uint32_t mapped                 # maptrack entries in use

cdef struct evtchn_t:
    uint32_t state                  # EvtchnState
    uint32_t remote_port
    uint32_t remote_domid

cdef struct xen_domain_t:
    uint32_t domid
    uint32_t index                  # in xen_t.domain and in host_t.domain
    uint32_t hash_next              # index of the next one in this bucket, or NO_DOMAIN
    uint32_t tot_pages              # machine pages it owns
    uint32_t max_pages
    uint32_t pfns                   # entries of p2m and pte
    uint32_t *p2m                   # the guest's own table: pseudo-physical to machine frame
    uint64_t *pte                   # its page table, written by the hypervisor alone: maddr | PTE_*
    grant_table_t grants
    shared_info_t *shared           # in a guest's page
    evtchn_t *port
    uint32_t ports                  # ports 1 .. ports - 1 can be used
    uint32_t reserved

cdef struct xen_stats_t:            # counted by the hypervisor
    uint64_t grant_maps
    uint64_t grant_unmaps
    uint64_t grant_copies
    uint64_t grant_transfers
    uint64_t grant_refusals
    uint64_t events_sent
    uint64_t events_posted          # of them, those that became a virtual interrupt
    uint64_t mmu_updates
    uint64_t va_updates
    uint64_t pages_allocated        # by increase_reservation
    uint64_t pages_freed
    uint64_t multicalls
    uint64_t hypercalls             # of this baseline, multicalls counted once

cdef struct xen_t:
    memory_t *memory
    host_t *host
    uint32_t domains
    uint32_t heap_pages             # pages in the heap
    uint32_t *heap                  # free machine frames of the hypervisor, a stack
    uint32_t *m2p                   # machine to pseudo-physical frame; guests change it by hypercall
    uint32_t hash[256]              # first domain of a bucket, or NO_DOMAIN
    xen_domain_t domain[64]
    xen_stats_t stats


cdef class Hypervisor:
    """The hypervisor's state and its domains, before anything runs."""
    cdef xen_t *c
    cdef readonly Memory memory
    cdef Host _host
    cdef list _regions
    cdef void *share(self, size_t size) except NULL
    cdef xen_domain_t *domain(self, uint32_t index) except NULL
    cdef _add_grants(self, xen_domain_t *d, uint32_t entries, uint32_t maptracks)
    cdef _free(self, uint32_t frame)


cdef inline xen_domain_t *find_domain(xen_t *xen, uint32_t domid) noexcept nogil:
    """The domain of this id, or NULL."""
    cdef uint32_t i = xen.hash[domid & (DOMAIN_HASH - 1)]
    while i != NO_DOMAIN:
        if xen.domain[i].domid == domid:
            return &xen.domain[i]
        i = xen.domain[i].hash_next
    return NULL


cdef inline bint get_page(xen_t *xen, uint64_t frame, uint32_t domid) noexcept nogil:
    """Takes a reference to a machine frame that `domid` owns; false when there is no such frame."""
    cdef page_t *page
    if frame >= xen.memory.pages:
        return False
    page = &xen.memory.page[frame]
    if page.owner != domid:
        return False
    page.pins += 1
    return True


cdef inline void put_page(xen_t *xen, uint64_t frame) noexcept nogil:
    xen.memory.page[frame].pins -= 1


cdef inline uint64_t frame_maddr(uint64_t frame) noexcept nogil:
    return frame << PAGE_SHIFT
