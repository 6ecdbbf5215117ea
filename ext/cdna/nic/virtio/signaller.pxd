"""The second thread of a NIC, which signals slow descriptors (slow_signals.pxd)."""

from libc.stdint cimport uint32_t

from cdna.memory cimport SharedRegion
from cdna.nic.device cimport Nic
from cdna.nic.virtio.slow_signals cimport signaller_t

cdef class Signaller:
    """The second thread of a NIC. Its memory is shared with a process that runs the engine."""

    cdef signaller_t *c
    cdef SharedRegion _memory
    cdef object _lock           # of the two below
    cdef object _thread         # None: there is no device
    cdef int _devices
    cdef forget(self, Nic nic, uint32_t index, uint32_t which, int fd)


cdef signal_later(Nic nic, int fd)
cdef Signaller signaller_of(Nic nic)
