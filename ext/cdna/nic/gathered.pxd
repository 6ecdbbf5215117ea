"""Frames of several descriptors, and frames with work left to do: collected in NIC memory, then sent.

Whatever a guest may still change is copied first; what was checked in the copy stays as it was.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy, memset

from cdna.abi cimport (
    COMPLETION_F_CSUM_OK, CONTEXT_RUNNING, DESC_F_EOP, DESC_F_OFFLOAD, FAULT_FLAGS, FAULT_FRAGMENTS,
    FAULT_LENGTH, FAULT_OFFLOAD, FAULT_SEQUENCE, MAX_FRAGMENTS, MAX_FRAME, MAX_TSO_FRAME, MIN_FRAME, RING_TX,
    VNET_HEADER, desc_t, offload_t, vnet_header_t,
)
from cdna.checks cimport (
    CHECK_FRAGMENTS_MANY, CHECK_FRAGMENTS_RING, CHECK_FRAGMENTS_SHORT, CHECK_FRAGMENTS_VNET_LONG,
    CHECK_FRAGMENT_EMPTY, CHECK_FRAGMENT_FLAGS, CHECK_FRAGMENT_LONG, broken, cdna_step,
)
from cdna.nic.context cimport context_t, nic_t, ring_t
from cdna.nic.demux cimport header_t, parse_header
from cdna.nic.dma cimport dma_copy
from cdna.nic.offload cimport checksum_finish
from cdna.nic.ring cimport consume, found_in, in_sequence, posted, read_desc, set_bit, stop_at
from cdna.nic.segmentation cimport segment_begin, segment_next, segmentation_t
from cdna.nic.switch cimport forward_flat
from cdna.nic.vnet cimport keeps_offload, offload_fault, read_vnet
from cdna.nic.wire_queue cimport wire_has_room

cdef enum:
    ROUND_SEGMENTS = 64         # of one frame before others have their turn; so many frames has a round

cdef struct gathered_t:         # what `gather_frame` found
    uint32_t used               # descriptors
    uint32_t len                # bytes in the segment buffer
    bint has_offload
    offload_t offload


cdef inline uint32_t length_limit(const context_t *context, const gathered_t *g) noexcept nogil:
    if context.vnet_header:
        return MAX_TSO_FRAME + VNET_HEADER
    return MAX_TSO_FRAME if g.has_offload and g.offload.mss else MAX_FRAME


cdef inline uint32_t gather_one(nic_t *nic, context_t *context, const desc_t *desc, gathered_t *g,
                                uint32_t n) noexcept nogil:
    """Adds the n-th descriptor of a frame to the segment buffer. Returns a Fault."""
    cdef uint32_t fault
    if not in_sequence(context, &context.tx, n, desc):
        return FAULT_SEQUENCE
    if desc.flags == DESC_F_OFFLOAD and n == 0 and not context.vnet_header:
        g.offload = (<offload_t *>&desc.addr)[0]
        g.has_offload = True
        return 0
    if broken(CHECK_FRAGMENT_FLAGS, desc.flags & ~<uint16_t>DESC_F_EOP):
        return FAULT_FLAGS
    if broken(CHECK_FRAGMENT_EMPTY, desc.len == 0) or \
            broken(CHECK_FRAGMENT_LONG, desc.len > length_limit(context, g) - g.len):
        return FAULT_LENGTH
    fault = dma_copy(nic, context, desc.addr, nic.segment_buffer + g.len, desc.len, False)
    g.len += desc.len
    if not fault and desc.flags & DESC_F_EOP and broken(
            CHECK_FRAGMENTS_SHORT, g.len < <uint32_t>MIN_FRAME + (VNET_HEADER if context.vnet_header else 0)):
        return FAULT_LENGTH
    return fault


cdef inline int gather_frame(nic_t *nic, context_t *context, gathered_t *g) noexcept nogil:
    """Copies the next frame to the segment buffer: 1 whole, 0 not whole yet, -1 stopped."""
    cdef ring_t *ring = &context.tx
    cdef uint32_t available = posted(ring), fault, n = 0
    cdef desc_t desc
    memset(g, 0, sizeof(gathered_t))
    while n < available and n < MAX_FRAGMENTS:
        read_desc(ring, ring.consumer + n, &desc)
        fault = gather_one(nic, context, &desc, g, n)
        if fault:
            stop_at(nic, context, fault, RING_TX, n, found_in(&desc, fault))
            return -1
        n += 1
        if desc.flags & DESC_F_EOP:
            g.used = n
            return 1
    if broken(CHECK_FRAGMENTS_MANY, n == MAX_FRAGMENTS) or broken(CHECK_FRAGMENTS_RING, n == ring.size):
        stop_at(nic, context, FAULT_FRAGMENTS, RING_TX, n, n)
        return -1
    return 0


cdef inline int segment(nic_t *nic, context_t *context) noexcept nogil:
    """Goes on with the segmentation under way: 1 done, 0 to be continued, -1 the context stopped."""
    cdef segmentation_t *segmentation = <segmentation_t *>nic.tso
    cdef uint32_t len
    cdef int _
    for _ in range(ROUND_SEGMENTS):
        if context.state != CONTEXT_RUNNING:
            nic.tso_context = NULL
            return -1
        if nic.tso_ready == 0:
            len = segment_next(segmentation, nic.tso_frame, MAX_FRAME)
            if len == 0:
                nic.tso_context = NULL
                return 1
            nic.tso_ready = len
        if not forward_flat(nic, context, nic.tso_frame, nic.tso_ready, segmentation.flags, NULL):
            return 0
        nic.tso_ready = 0
    if segmentation.segments:
        return 0
    nic.tso_context = NULL
    return 1


cdef inline int finish(nic_t *nic, context_t *context, uint32_t used) noexcept nogil:
    """Completes the descriptors of a frame that was sent: 1, or -1 where its own frame stopped it."""
    if context.state != CONTEXT_RUNNING:
        return -1
    cdna_step()
    consume(&context.tx, used)
    set_bit(nic.dirty, context.index)
    return 1


cdef inline bint as_it_is(nic_t *nic, context_t *context, const uint8_t *frame, uint32_t len,
                          const offload_t *o) noexcept nogil:
    """Whether the receivers of a frame in NIC memory do its work themselves."""
    cdef header_t header
    parse_header(&header, frame)
    return keeps_offload(nic, context, &header, o, frame, len)


cdef inline void work(nic_t *nic, context_t *context, uint8_t *frame, uint32_t len,
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


cdef inline int send_gathered(nic_t *nic, context_t *context) noexcept nogil:
    """A frame of several descriptors or with an offload: 1 sent, 0 wait, -1 stopped."""
    cdef gathered_t g
    cdef uint8_t *frame = nic.segment_buffer
    cdef uint32_t len, fault = 0
    cdef int whole
    if not wire_has_room(nic) or nic.tso_context != NULL:   # before the copy, which would be made again
        return 0
    whole = gather_frame(nic, context, &g)
    if whole != 1:
        return whole
    len = g.len
    memset(frame + len, 0, 8)           # a header can be read of the shortest frame
    if context.vnet_header:
        frame += VNET_HEADER
        len -= VNET_HEADER
        fault = read_vnet(<vnet_header_t *>nic.segment_buffer, frame, len, len, &g.offload,
                          &g.has_offload)
    elif g.has_offload:
        fault = offload_fault(frame, len, &g.offload)
    if fault:
        stop_at(nic, context, FAULT_OFFLOAD, RING_TX, 0,
                g.offload.mss if g.offload.mss else g.offload.csum_start)
        return -1
    if g.has_offload:
        work(nic, context, frame, len, &g.offload)
    else:
        if broken(CHECK_FRAGMENTS_VNET_LONG, len > MAX_FRAME):
            stop_at(nic, context, FAULT_LENGTH, RING_TX, g.used - 1, len)
            return -1
        forward_flat(nic, context, frame, len, 0, NULL)
    return finish(nic, context, g.used)
