"""Pseudo-physical memory: P2M and M2P tables, page tables and reservations of a paravirtual domain.

A paravirtual domain of Xen 3 knows its pages by pseudo-physical frame number. It keeps P2M itself; M2P,
its page table and the number of its pages change by hypercall only. Page flipping moves machine frames in
and out of this map, so all of it is work on that path. A software page-table entry stands for the hardware
one: one entry a page, read when the domain touches a page that may have moved.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.abi cimport PAGE_SHIFT
from cdna.compare.paths.xen3.domain cimport xen_domain_t, xen_t
from cdna.compare.paths.xen3.public cimport FOREIGN_FRAME, INVALID_MFN, mmu_update_t

# Hypervisor code; results are 0 or an Errno, or how many frames.
cdef int update_va_mapping(xen_t *xen, xen_domain_t *domain, uint64_t pfn, uint64_t pte) noexcept nogil
cdef int mmu_update(xen_t *xen, xen_domain_t *domain, const mmu_update_t *update, uint32_t n) noexcept nogil
cdef int increase_reservation(xen_t *xen, xen_domain_t *domain, uint32_t *mfn, uint32_t n) noexcept nogil
cdef int decrease_reservation(xen_t *xen, xen_domain_t *domain, const uint32_t *mfn,
                              uint32_t n) noexcept nogil


cdef inline uint64_t page_maddr(const xen_domain_t *domain, uint32_t pfn) noexcept nogil:
    """The walk of the page table: machine address of the page mapped at a pseudo-physical frame."""
    return domain.pte[pfn] >> PAGE_SHIFT << PAGE_SHIFT


cdef inline uint32_t pfn_to_mfn(const xen_domain_t *domain, uint32_t pfn) noexcept nogil:
    return domain.p2m[pfn] & ~<uint32_t>FOREIGN_FRAME


cdef inline void set_phys_to_machine(xen_domain_t *domain, uint32_t pfn, uint32_t mfn) noexcept nogil:
    domain.p2m[pfn] = mfn
