"""The queue wire: two rings of frames between the NIC and Python."""

from libc.stdint cimport uint32_t

from cdna.nic.frame cimport frame_t
from cdna.nic.spsc cimport spsc_t
from cdna.nic.wire cimport Wire
from cdna.nic.wire_contract cimport wire_t

cdef struct queue_state_t:
    spsc_t out                  # NIC to Python
    spsc_t into                 # Python to NIC
    uint32_t lent               # slots of `into` that the NIC may still read

cdef class QueueWire(Wire):
    cdef queue_state_t *queues

cdef int queue_tx(wire_t *self, frame_t *frame, int n) noexcept nogil
cdef int queue_rx(wire_t *self, frame_t *frame, int n) noexcept nogil
