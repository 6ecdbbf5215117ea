"""The VMM's tables as Python holds them."""

from cdna.memory cimport SharedRegion
from cdna.nic.device cimport Nic
from cdna.vmm.protection cimport vmm_t

cdef class Tables:
    cdef vmm_t *c
    cdef readonly Nic nic
    cdef SharedRegion _region
    cdef dict _limbo
