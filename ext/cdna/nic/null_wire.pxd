"""The null wire: what is sent is counted, checked if wanted, and gone. Nothing is received."""

from libc.stdint cimport uint32_t, uint64_t

from cdna.nic.frame cimport frame_t
from cdna.nic.line cimport line_t
from cdna.nic.traffic cimport Load, load_t
from cdna.nic.wire cimport Wire
from cdna.nic.wire_contract cimport wire_t

cdef struct sink_flow_t:
    uint64_t expected           # sequence number of the next frame

cdef struct bad_frame_t:        # the first one
    uint64_t number             # frames before it
    uint64_t expected
    uint64_t found
    uint32_t flow
    uint32_t length
    uint32_t error              # FrameError

cdef struct sink_t:
    const load_t *load          # NULL: nothing is checked
    sink_flow_t *flow
    uint32_t flows
    uint32_t reserved
    line_t line
    uint64_t frames             # all, good and bad
    uint64_t bad
    bad_frame_t first_bad

cdef class NullWire(Wire):
    cdef sink_t *sink
    cdef readonly Load check     # what is expected; None: nothing is checked

cdef int null_tx(wire_t *self, frame_t *frame, int n) noexcept nogil
