"""A CDNA guest as a domain of the host core."""

from cdna.compare.host cimport Host, host_t
from cdna.guests.synthetic cimport SyntheticGuest, synthetic_t
from cdna.memory cimport SharedRegion

cdef struct cdna_guest_t:
    synthetic_t *synthetic
    host_t *host
    unsigned int domain         # domain id

cdef class CdnaGuest:
    cdef readonly SyntheticGuest synthetic
    cdef Host _host
    cdef SharedRegion _region
