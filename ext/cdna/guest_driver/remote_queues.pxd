"""The native driver of a guest in a process of its own."""

from libc.stdint cimport uint8_t

from cdna.guest_driver.queues cimport Queues
from cdna.protocol.hypercall cimport hypercall_reply_t

cdef struct remote_caller_t:    # who makes hypercalls by a socket
    int fd
    int lost                    # errno of a socket that is of no more use, or 0
    hypercall_reply_t reply     # the last one

cdef class Mapping:
    """A memory file that is mapped as long as this lives."""
    cdef uint8_t *base
    cdef readonly size_t size
    cdef readonly bint writable

cdef class RemoteQueues(Queues):
    cdef remote_caller_t _caller
    cdef object _keep
