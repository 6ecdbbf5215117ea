"""Grant table operations in the hypervisor: map, unmap, copy and transfer, in batches.

What Xen does for each is in xen/common/grant_table.c. An operation is read once into a local; a grant entry
is read and changed as one 32-bit word, by compare and swap; its frame is read once, when the grant is first
used, and kept in the active entry. Xen's spin locks are left out (one host processor), as is the TLB flush
after unmapping: both would make the baseline slower.
"""

from cdna.abi cimport PAGE_SHIFT, PAGE_SIZE
from cdna.compare.paths.xen3.atomics cimport and_u16, cas_u32, or_u16
from cdna.compare.paths.xen3.domain cimport (
    GNTPIN_hstr_inc, GNTPIN_hstw_inc, GNTPIN_hstw_mask, GNTPIN_overflow, NO_HANDLE, active_grant_t,
    find_domain, frame_maddr, get_page, grant_table_t, maptrack_t, put_page,
)
from cdna.compare.paths.xen3.public cimport (
    DOMID_SELF, GNTCOPY_dest_gref, GNTCOPY_source_gref, GNTMAP_host_map, GNTMAP_readonly,
    GNTST_bad_copy_arg, GNTST_bad_dev_addr, GNTST_bad_domain, GNTST_bad_gntref, GNTST_bad_handle,
    GNTST_bad_page, GNTST_bad_virt_addr, GNTST_general_error, GNTST_no_device_space, GNTST_okay,
    GNTST_permission_denied, GNTTABOP_copy, GNTTABOP_map_grant_ref, GNTTABOP_transfer,
    GNTTABOP_unmap_grant_ref, GTF_type_mask, PTE_PRESENT, PTE_WRITE, XEN_ENOSYS, gnttab_copy_ptr_t,
    gnttab_copy_t, gnttab_transfer_t, gnttab_unmap_grant_ref_t,
)
from cdna.cpu cimport compiler_barrier, copy_bytes
from cdna.memory cimport page_t

cdef enum:
    RETRIES = 5                     # of the compare and swap, against a guest that keeps changing its entry


cdef inline int set_in_use(grant_entry_t *entry, uint32_t domid, bint readonly) noexcept nogil:
    """Marks an access grant as read, and as written unless `readonly`; refuses what it does not allow."""
    cdef uint32_t *word = <uint32_t *>entry         # flags in the low half, domid in the high one
    cdef uint32_t found, wanted, _
    for _ in range(RETRIES):
        found = load_u32(word)
        if found & GTF_type_mask != GTF_permit_access or found >> 16 != domid:
            return GNTST_general_error
        if not readonly and found & GTF_readonly:
            return GNTST_general_error
        wanted = found | GTF_reading | (0 if readonly else GTF_writing)
        if found == wanted or cas_u32(word, found, wanted):
            return GNTST_okay
    return GNTST_general_error


cdef inline int pin_grant(xen_t *xen, xen_domain_t *owner, uint32_t ref, uint32_t domid, bint readonly,
                          uint32_t *frame) noexcept nogil:
    """Takes a grant of `owner` into use by `domid`, with a reference to its page."""
    cdef grant_table_t *table = &owner.grants
    cdef active_grant_t *active
    cdef int status
    if ref >= table.entries:
        return GNTST_bad_gntref
    active = &table.active[ref]
    if active.pin and (active.domid != domid or active.pin & GNTPIN_overflow):
        return GNTST_general_error
    if not active.pin or not (readonly or active.pin & GNTPIN_hstw_mask):
        status = set_in_use(&table.shared[ref], domid, readonly)
        if status != GNTST_okay:
            return status
        if not active.pin:
            active.domid = domid
            active.frame = load_u32(&table.shared[ref].frame)
    if not get_page(xen, active.frame, owner.domid):
        release_marks(table, ref)
        return GNTST_general_error
    active.pin += GNTPIN_hstr_inc if readonly else GNTPIN_hstw_inc
    frame[0] = active.frame
    return GNTST_okay


cdef inline void release_marks(grant_table_t *table, uint32_t ref) noexcept nogil:
    """Tells the guest, in its entry, which uses have ended."""
    cdef uint32_t pin = table.active[ref].pin
    if pin == 0:
        and_u16(&table.shared[ref].flags, <uint16_t>~(GTF_reading | GTF_writing))
    elif not pin & GNTPIN_hstw_mask:
        and_u16(&table.shared[ref].flags, <uint16_t>~GTF_writing)


cdef inline void unpin_grant(xen_t *xen, xen_domain_t *owner, uint32_t ref, bint readonly) noexcept nogil:
    cdef active_grant_t *active = &owner.grants.active[ref]
    put_page(xen, active.frame)
    active.pin -= GNTPIN_hstr_inc if readonly else GNTPIN_hstw_inc
    if readonly and active.pin:
        return
    release_marks(&owner.grants, ref)


cdef inline int map_one(xen_t *xen, xen_domain_t *domain, gnttab_map_grant_ref_t *op) noexcept nogil:
    cdef xen_domain_t *owner
    cdef maptrack_t *track
    cdef uint32_t handle = domain.grants.maptrack_head, frame = 0
    cdef bint readonly = op.flags & GNTMAP_readonly
    cdef int status
    if not op.flags & GNTMAP_host_map:
        return GNTST_bad_gntref
    owner = find_domain(xen, op.dom)
    if owner == NULL:
        return GNTST_bad_domain
    if op.host_addr >= domain.pfns or domain.pte[op.host_addr] & PTE_PRESENT:
        return GNTST_bad_virt_addr
    if handle == NO_HANDLE:
        return GNTST_no_device_space
    status = pin_grant(xen, owner, op.ref, domain.domid, readonly, &frame)
    if status != GNTST_okay:
        return status
    domain.pte[op.host_addr] = frame_maddr(frame) | PTE_PRESENT | (0 if readonly else PTE_WRITE)
    track = &domain.grants.maptrack[handle]
    domain.grants.maptrack_head = track.ref
    domain.grants.mapped += 1
    track.ref = op.ref
    track.flags = op.flags
    track.domid = op.dom
    track.frame = frame
    op.handle = handle
    op.dev_bus_addr = frame_maddr(frame)
    return GNTST_okay


cdef void gnttab_map(xen_t *xen, xen_domain_t *domain, gnttab_map_grant_ref_t *op, uint32_t n) noexcept nogil:
    cdef gnttab_map_grant_ref_t copy
    cdef uint32_t i
    for i in range(n):
        copy = op[i]
        compiler_barrier()
        copy.status = map_one(xen, domain, &copy)
        xen.stats.grant_maps += copy.status == GNTST_okay
        xen.stats.grant_refusals += copy.status != GNTST_okay
        op[i].status = copy.status
        op[i].handle = copy.handle
        op[i].dev_bus_addr = copy.dev_bus_addr


cdef inline int unmap_one(xen_t *xen, xen_domain_t *domain, gnttab_unmap_grant_ref_t *op) noexcept nogil:
    cdef maptrack_t *track
    cdef xen_domain_t *owner
    if op.handle >= domain.grants.maptracks:
        return GNTST_bad_handle
    track = &domain.grants.maptrack[op.handle]
    if not track.flags:
        return GNTST_bad_handle
    owner = find_domain(xen, track.domid)
    if owner == NULL:
        return GNTST_bad_domain
    if op.dev_bus_addr and op.dev_bus_addr != frame_maddr(track.frame):
        return GNTST_bad_dev_addr
    if op.host_addr >= domain.pfns or not domain.pte[op.host_addr] & PTE_PRESENT or \
            domain.pte[op.host_addr] >> PAGE_SHIFT != track.frame:
        return GNTST_bad_virt_addr
    domain.pte[op.host_addr] = 0
    unpin_grant(xen, owner, track.ref, track.flags & GNTMAP_readonly)
    track.flags = 0
    track.ref = domain.grants.maptrack_head
    domain.grants.maptrack_head = op.handle
    domain.grants.mapped -= 1
    return GNTST_okay


cdef void gnttab_unmap(xen_t *xen, xen_domain_t *domain, gnttab_unmap_grant_ref_t *op,
                       uint32_t n) noexcept nogil:
    cdef gnttab_unmap_grant_ref_t copy
    cdef uint32_t i
    for i in range(n):
        copy = op[i]
        compiler_barrier()
        copy.status = unmap_one(xen, domain, &copy)
        xen.stats.grant_unmaps += copy.status == GNTST_okay
        xen.stats.grant_refusals += copy.status != GNTST_okay
        op[i].status = copy.status


cdef struct copy_side_t:            # one side of a copy while it runs
    xen_domain_t *owner
    uint32_t ref                    # or INVALID_REF: a machine frame of the caller's
    uint32_t frame
    bint readonly


cdef inline int acquire_side(xen_t *xen, xen_domain_t *domain, const gnttab_copy_ptr_t *ptr, bint by_ref,
                             bint readonly, copy_side_t *side) noexcept nogil:
    side.readonly = readonly
    side.ref = INVALID_REF
    if not by_ref:
        if ptr.domid != DOMID_SELF and ptr.domid != domain.domid:
            return GNTST_permission_denied
        if not get_page(xen, ptr.frame, domain.domid):
            return GNTST_bad_copy_arg
        side.frame = <uint32_t>ptr.frame
        return GNTST_okay
    side.owner = domain if ptr.domid == DOMID_SELF else find_domain(xen, ptr.domid)
    if side.owner == NULL:
        return GNTST_bad_domain
    if ptr.frame >= side.owner.grants.entries:
        return GNTST_bad_gntref
    side.ref = <uint32_t>ptr.frame
    return pin_grant(xen, side.owner, side.ref, domain.domid, readonly, &side.frame)


cdef inline void release_side(xen_t *xen, copy_side_t *side) noexcept nogil:
    if side.ref == INVALID_REF:
        put_page(xen, side.frame)
    else:
        unpin_grant(xen, side.owner, side.ref, side.readonly)


cdef inline int copy_one(xen_t *xen, xen_domain_t *domain, const gnttab_copy_t *op) noexcept nogil:
    cdef copy_side_t source, dest
    cdef int status
    if op.source.offset > PAGE_SIZE or op.len > PAGE_SIZE - op.source.offset or \
            op.dest.offset > PAGE_SIZE or op.len > PAGE_SIZE - op.dest.offset:
        return GNTST_bad_copy_arg
    status = acquire_side(xen, domain, &op.source, op.flags & GNTCOPY_source_gref, True, &source)
    if status != GNTST_okay:
        return status
    status = acquire_side(xen, domain, &op.dest, op.flags & GNTCOPY_dest_gref, False, &dest)
    if status == GNTST_okay:
        copy_bytes(xen.memory.base + frame_maddr(dest.frame) + op.dest.offset,
                   xen.memory.base + frame_maddr(source.frame) + op.source.offset, op.len)
        release_side(xen, &dest)
    release_side(xen, &source)
    return status


cdef void gnttab_copy(xen_t *xen, xen_domain_t *domain, gnttab_copy_t *op, uint32_t n) noexcept nogil:
    cdef gnttab_copy_t copy
    cdef uint32_t i
    for i in range(n):
        copy = op[i]
        compiler_barrier()
        copy.status = copy_one(xen, domain, &copy)
        xen.stats.grant_copies += copy.status == GNTST_okay
        xen.stats.grant_refusals += copy.status != GNTST_okay
        op[i].status = copy.status


cdef inline bint prepare_transfer(grant_table_t *table, uint32_t ref, uint32_t domid) noexcept nogil:
    """Commits the receiver's entry, if it awaits a page from `domid`."""
    cdef uint32_t *word
    cdef uint32_t found, _
    if ref >= table.entries:
        return False
    word = <uint32_t *>&table.shared[ref]
    for _ in range(RETRIES):
        found = load_u32(word)
        if found & 0xFFFF != GTF_accept_transfer or found >> 16 != domid:
            return False
        if cas_u32(word, found, found | GTF_transfer_committed):
            return True
    return False


cdef inline int transfer_one(xen_t *xen, xen_domain_t *domain, const gnttab_transfer_t *op) noexcept nogil:
    """Moves a page to another domain. The page is gone also when the receiver refuses it, as in Xen."""
    cdef page_t *page
    cdef xen_domain_t *to
    cdef uint32_t mfn = <uint32_t>op.mfn
    if op.mfn >= xen.memory.pages:
        return GNTST_bad_page
    page = &xen.memory.page[mfn]
    if page.owner != domain.domid or page.pins != 0:
        return GNTST_bad_page
    domain.tot_pages -= 1
    to = find_domain(xen, op.domid)
    if to == NULL or to.tot_pages >= to.max_pages or not prepare_transfer(&to.grants, op.ref, domain.domid):
        page.owner = 0                              # DOMID_VMM: back to the heap
        xen.heap[xen.heap_pages] = mfn
        xen.heap_pages += 1
        return GNTST_bad_domain if to == NULL else GNTST_general_error
    page.owner = to.domid
    to.tot_pages += 1
    to.grants.shared[op.ref].frame = mfn
    or_u16(&to.grants.shared[op.ref].flags, GTF_transfer_completed)     # orders the frame before it
    return GNTST_okay


cdef void gnttab_transfer(xen_t *xen, xen_domain_t *domain, gnttab_transfer_t *op, uint32_t n) noexcept nogil:
    cdef gnttab_transfer_t copy
    cdef uint32_t i
    for i in range(n):
        copy = op[i]
        compiler_barrier()
        copy.status = transfer_one(xen, domain, &copy)
        xen.stats.grant_transfers += copy.status == GNTST_okay
        xen.stats.grant_refusals += copy.status != GNTST_okay
        op[i].status = copy.status


cdef int gnttab_op(xen_t *xen, xen_domain_t *domain, uint32_t command, void *op, uint32_t n) noexcept nogil:
    if command == GNTTABOP_map_grant_ref:
        gnttab_map(xen, domain, <gnttab_map_grant_ref_t *>op, n)
    elif command == GNTTABOP_unmap_grant_ref:
        gnttab_unmap(xen, domain, <gnttab_unmap_grant_ref_t *>op, n)
    elif command == GNTTABOP_copy:
        gnttab_copy(xen, domain, <gnttab_copy_t *>op, n)
    elif command == GNTTABOP_transfer:
        gnttab_transfer(xen, domain, <gnttab_transfer_t *>op, n)
    else:
        return XEN_ENOSYS
    return 0
