"""The VMM's tables as Python holds them."""

from libc.stdint cimport uint32_t

from cdna.memory cimport SharedRegion
from cdna.nic.device cimport Nic
from cdna.vmm.protection cimport vcontext_t, vmm_t

cdef class Tables:
    cdef vmm_t *c
    cdef readonly Nic nic
    cdef SharedRegion _region
    cdef dict _limbo

    cdef vcontext_t *_context(self, uint32_t context) except NULL
