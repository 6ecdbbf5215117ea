"""Grant tables: how a domain lets another one map, copy, or give it a page.

The guest's side is inline here: a domain writes its own entries and takes them back with the compare and
swap that Xen's interface prescribes (xen/include/public/grant_table.h). The hypervisor's side, the four
batched operations, is in `ext/cdna/compare/paths/xen3/grant_table.pyx`.

Life of an access grant, by its `flags`:

    invalid --grant--> permit_access --map or copy--> + reading [+ writing]
       ^                    |                              |
       +------ end ---------+ <---------- unmap -----------+        (end fails while reading or writing)

Life of a transfer grant:

    invalid --grant--> accept_transfer --hypervisor--> + committed --> + completed --end--> invalid, frame
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from cdna.compare.paths.xen3.atomics cimport cas_u16, load_u16, store_u16
from cdna.compare.paths.xen3.domain cimport xen_domain_t, xen_t
from cdna.compare.paths.xen3.public cimport (
    GTF_accept_transfer, GTF_permit_access, GTF_reading, GTF_readonly, GTF_transfer_committed,
    GTF_transfer_completed, GTF_writing, INVALID_MFN, INVALID_REF, gnttab_map_grant_ref_t, grant_entry_t,
)
from cdna.cpu cimport cpu_relax, load_u32

cdef struct grant_refs_t:           # a guest's free references, a stack
    uint32_t *free
    uint32_t n_free
    uint32_t entries

# Hypervisor code: runs n operations of `domain` and writes one status each.
cdef void gnttab_map(xen_t *xen, xen_domain_t *domain, gnttab_map_grant_ref_t *op, uint32_t n) noexcept nogil
# Any of the four by command; returns 0 or XEN_ENOSYS.
cdef int gnttab_op(xen_t *xen, xen_domain_t *domain, uint32_t command, void *op, uint32_t n) noexcept nogil


cdef inline uint32_t get_free_ref(grant_refs_t *refs) noexcept nogil:
    """A free grant reference, or INVALID_REF."""
    if refs.n_free == 0:
        return INVALID_REF
    refs.n_free -= 1
    return refs.free[refs.n_free]


cdef inline void put_free_ref(grant_refs_t *refs, uint32_t ref) noexcept nogil:
    refs.free[refs.n_free] = ref
    refs.n_free += 1


cdef inline void grant_foreign_access(grant_entry_t *shared, uint32_t ref, uint32_t domid, uint32_t frame,
                                      bint readonly) noexcept nogil:
    """Lets `domid` map or copy a machine frame of ours. The flags come last: they make the entry valid."""
    cdef grant_entry_t *entry = &shared[ref]
    entry.frame = frame
    entry.domid = domid
    store_u16(&entry.flags, GTF_permit_access | (GTF_readonly if readonly else 0))


cdef inline bint end_foreign_access(grant_entry_t *shared, uint32_t ref) noexcept nogil:
    """Takes a grant back; false while the frame is in use."""
    cdef grant_entry_t *entry = &shared[ref]
    cdef uint16_t flags = load_u16(&entry.flags)
    while not flags & (GTF_reading | GTF_writing):
        if cas_u16(&entry.flags, flags, 0):
            return True
        flags = load_u16(&entry.flags)
    return False


cdef inline void grant_foreign_transfer(grant_entry_t *shared, uint32_t ref, uint32_t domid,
                                        uint32_t pfn) noexcept nogil:
    """Lets `domid` give us a page, for our pseudo-physical frame `pfn`."""
    cdef grant_entry_t *entry = &shared[ref]
    entry.frame = pfn
    entry.domid = domid
    store_u16(&entry.flags, GTF_accept_transfer)


cdef inline uint32_t end_foreign_transfer(grant_entry_t *shared, uint32_t ref) noexcept nogil:
    """Takes a transfer grant back; the machine frame that came through it, or INVALID_MFN."""
    cdef grant_entry_t *entry = &shared[ref]
    cdef uint16_t flags = load_u16(&entry.flags)
    cdef uint32_t frame
    while not flags & GTF_transfer_committed:
        if cas_u16(&entry.flags, flags, 0):
            return INVALID_MFN
        flags = load_u16(&entry.flags)
    while not flags & GTF_transfer_completed:       # the hypervisor is writing the frame now
        cpu_relax()
        flags = load_u16(&entry.flags)
    frame = load_u32(&entry.frame)
    store_u16(&entry.flags, 0)
    return frame
