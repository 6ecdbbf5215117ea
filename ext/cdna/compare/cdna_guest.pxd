"""A CDNA guest as a domain of the host core."""

from cdna.compare.host cimport domain_t, host_t
from cdna.guest_driver.queues cimport driver_t
from cdna.guest_driver.synthetic cimport synthetic_t
from cdna.vmm.protection cimport vmm_t

cdef struct cdna_guest_t:
    synthetic_t *synthetic
    host_t *host
    unsigned int domain         # domain id

# Makes the guest's hypercalls cross into the VMM of `host`.
cdef void use_host(cdna_guest_t *guest, host_t *host) noexcept
cdef void run_transmit(domain_t *self, host_t *host) noexcept nogil
cdef void run_receive(domain_t *self, host_t *host) noexcept nogil
