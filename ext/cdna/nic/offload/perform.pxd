"""Carries out an offload: a frame in NIC memory is sent whole, completed, or cut, as its receivers want it.

Segments of one frame are sent over several rounds (`nic_t.tso_context`); the context's next frame waits for
them.
"""

from libc.stdint cimport uint8_t, uint32_t

from cdna.abi cimport COMPLETION_F_CSUM_OK, CONTEXT_RUNNING, MAX_FRAME, offload_t
from cdna.nic.context cimport context_t
from cdna.nic.demux cimport header_t, parse_header
from cdna.nic.offload.segmentation cimport segment_begin, segment_next, segmentation_t
from cdna.nic.offload.transport_checksum cimport checksum_finish
from cdna.nic.offload.vnet cimport keeps_offload
from cdna.nic.outcome cimport DONE, STOPPED, WAIT
from cdna.nic.state cimport nic_t
from cdna.nic.switch cimport forward_flat

cdef enum:
    ROUND_SEGMENTS = 64         # of one frame before others have their turn; so many frames has a round


cdef inline int segment(nic_t *nic, context_t *context) noexcept nogil:
    """Goes on with the segmentation under way: DONE, WAIT (to be continued) or STOPPED."""
    cdef segmentation_t *segmentation = <segmentation_t *>nic.tso
    cdef uint32_t len
    cdef int _
    for _ in range(ROUND_SEGMENTS):
        if context.state != CONTEXT_RUNNING:
            nic.tso_context = NULL
            return STOPPED
        if nic.tso_ready == 0:
            len = segment_next(segmentation, &nic.fragment_ids, nic.tso_frame, MAX_FRAME)
            if len == 0:
                nic.tso_context = NULL
                return DONE
            nic.tso_ready = len
        if not forward_flat(nic, context, nic.tso_frame, nic.tso_ready, segmentation.flags, NULL):
            return WAIT
        nic.tso_ready = 0
    if segmentation.segments:
        return WAIT
    nic.tso_context = NULL
    return DONE


cdef inline bint as_it_is(nic_t *nic, context_t *context, const uint8_t *frame, uint32_t len,
                          const offload_t *o) noexcept nogil:
    """Whether the receivers of a frame in NIC memory do its work themselves."""
    cdef header_t header
    parse_header(&header, frame)
    return keeps_offload(nic, context, &header, o, frame, len)


cdef inline void perform(nic_t *nic, context_t *context, uint8_t *frame, uint32_t len,
                         const offload_t *o) noexcept nogil:
    """Sends a frame in the segment buffer with its offload, which was checked there; there is room."""
    if as_it_is(nic, context, frame, len, o):
        forward_flat(nic, context, frame, len, 0, o)
    elif o.mss == 0:
        checksum_finish(frame, len, o)
        forward_flat(nic, context, frame, len, COMPLETION_F_CSUM_OK if context.vnet_header else 0, NULL)
    else:
        segment_begin(<segmentation_t *>nic.tso, frame, len, o)
        nic.tso_context = context
        nic.tso_ready = 0
        segment(nic, context)
