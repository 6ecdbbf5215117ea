"""Page-table and reservation hypercalls (Xen: xen/arch/x86/mm.c and xen/common/memory.c).

An update of a page-table entry checks the owner of the new frame, takes a reference to it and drops the one
to the old frame. Xen's page types, its locks and the TLB flush are left out: all would add work here.
"""

from cdna.compare.paths.xen3.domain cimport get_page, put_page
from cdna.compare.paths.xen3.public cimport MMU_MACHPHYS_UPDATE, PTE_PRESENT, XEN_EINVAL
from cdna.cpu cimport compiler_barrier
from cdna.memory cimport DOMID_VMM, page_t


cdef int update_va_mapping(xen_t *xen, xen_domain_t *domain, uint64_t pfn, uint64_t pte) noexcept nogil:
    """Writes the page-table entry of a pseudo-physical frame; 0 for `pte` unmaps."""
    cdef uint64_t old
    if pfn >= domain.pfns:
        return XEN_EINVAL
    if pte & PTE_PRESENT and not get_page(xen, pte >> PAGE_SHIFT, domain.domid):
        return XEN_EINVAL
    old = domain.pte[pfn]
    domain.pte[pfn] = pte
    if old & PTE_PRESENT:
        put_page(xen, old >> PAGE_SHIFT)
    return 0


cdef int mmu_update(xen_t *xen, xen_domain_t *domain, const mmu_update_t *update, uint32_t n) noexcept nogil:
    """Writes M2P entries of frames that the domain owns; stops at the first that is wrong."""
    cdef mmu_update_t copy
    cdef uint64_t mfn
    cdef uint32_t i
    for i in range(n):
        copy = update[i]
        compiler_barrier()
        mfn = copy.ptr >> PAGE_SHIFT
        if copy.ptr & 3 != MMU_MACHPHYS_UPDATE or mfn >= xen.memory.pages or \
                xen.memory.page[mfn].owner != domain.domid:
            return XEN_EINVAL
        xen.m2p[mfn] = <uint32_t>copy.val
        xen.stats.mmu_updates += 1
    return 0


cdef int increase_reservation(xen_t *xen, xen_domain_t *domain, uint32_t *mfn, uint32_t n) noexcept nogil:
    """Gives the domain up to n pages of the heap; returns how many."""
    cdef uint32_t i
    for i in range(n):
        if xen.heap_pages == 0 or domain.tot_pages >= domain.max_pages:
            return i
        xen.heap_pages -= 1
        domain.tot_pages += 1
        mfn[i] = xen.heap[xen.heap_pages]
        xen.memory.page[mfn[i]].owner = domain.domid
        xen.stats.pages_allocated += 1
    return n


cdef int decrease_reservation(xen_t *xen, xen_domain_t *domain, const uint32_t *mfn,
                              uint32_t n) noexcept nogil:
    """Takes pages back into the heap, up to the first that is not the domain's or is in use."""
    cdef uint64_t frame
    cdef page_t *page
    cdef uint32_t i
    for i in range(n):
        frame = load_once(&mfn[i])
        if frame >= xen.memory.pages:
            return i
        page = &xen.memory.page[frame]
        if page.owner != domain.domid or page.pins:
            return i
        page.owner = DOMID_VMM
        domain.tot_pages -= 1
        xen.heap[xen.heap_pages] = frame
        xen.heap_pages += 1
        xen.stats.pages_freed += 1
    return n


cdef inline uint32_t load_once(const uint32_t *word) noexcept nogil:
    cdef uint32_t value = word[0]
    compiler_barrier()
    return value
