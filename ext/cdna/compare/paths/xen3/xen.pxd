"""The whole of the Xen baseline on one host: the driver domain, its NIC context, and the guests."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.compare.paths.xen3.domain cimport Hypervisor, xen_t
from cdna.compare.paths.xen3.netback cimport netback_t
from cdna.compare.paths.xen3.netfront cimport netfront_t
from cdna.compare.paths.xen3.public cimport sring_t
from cdna.compare.host cimport Host
from cdna.guest_driver.queues cimport Queues
from cdna.memory cimport Memory
from cdna.nic.traffic cimport Load

cdef class XenBridge:
    cdef readonly Hypervisor hypervisor
    cdef readonly Load load
    cdef readonly int guests
    cdef readonly bint flip
    cdef readonly bint closed
    cdef Queues _nic
    cdef Host _host
    cdef netback_t *_netback
    cdef netfront_t *_front         # by guest
    cdef uint64_t *_acks            # one cache line each
    cdef uint64_t _peer
    cdef list _macs
    cdef uint32_t _domid
    cdef uint32_t *_array(self, uint32_t size) except NULL
    cdef uint32_t *_stack(self, uint32_t size, uint32_t first=*) except NULL
    cdef sring_t *_share_ring(self, netfront_t *nf, uint32_t pfn, uint32_t backend_pfn) except NULL
