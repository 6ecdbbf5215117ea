"""Frames of several descriptors, and frames with an offload: collected in NIC memory, then sent.

Whatever a guest may still change is copied first; what was checked in the copy stays as it was.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memset

from cdna.abi cimport (
    CONTEXT_RUNNING, DESC_F_EOP, DESC_F_OFFLOAD, FAULT_FLAGS, FAULT_FRAGMENTS, FAULT_LENGTH, FAULT_OFFLOAD,
    FAULT_SEQUENCE, MAX_FRAGMENTS, MAX_FRAME, MAX_TSO_FRAME, MIN_FRAME, RING_TX, VNET_HEADER, desc_t,
    offload_t, vnet_header_t,
)
from cdna.checks cimport (
    CHECK_FRAGMENT_EMPTY, CHECK_FRAGMENT_FLAGS, CHECK_FRAGMENT_LONG, CHECK_FRAGMENTS_MANY,
    CHECK_FRAGMENTS_RING, CHECK_FRAGMENTS_SHORT, CHECK_FRAGMENTS_VNET_LONG, broken, cdna_step,
)
from cdna.nic.bits cimport set_bit
from cdna.nic.context cimport context_t, ring_t
from cdna.nic.native.dma cimport dma_copy
from cdna.nic.native.ring cimport consume, found_in, in_sequence, posted, read_desc, stop_at
from cdna.nic.offload.perform cimport perform
from cdna.nic.offload.vnet cimport offload_fault, read_vnet
from cdna.nic.outcome cimport DONE, STOPPED, WAIT
from cdna.nic.state cimport nic_t
from cdna.nic.switch cimport forward_flat
from cdna.nic.wire_queue cimport wire_has_room

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
    """Copies the next frame to the segment buffer: DONE, WAIT where it is not whole yet, or STOPPED."""
    cdef ring_t *ring = &context.tx
    cdef uint32_t available = posted(ring), fault, n = 0
    cdef desc_t desc
    memset(g, 0, sizeof(gathered_t))
    while n < available and n < MAX_FRAGMENTS:
        read_desc(ring, ring.consumer + n, &desc)
        fault = gather_one(nic, context, &desc, g, n)
        if fault:
            stop_at(nic, context, fault, RING_TX, n, found_in(&desc, fault))
            return STOPPED
        n += 1
        if desc.flags & DESC_F_EOP:
            g.used = n
            return DONE
    if broken(CHECK_FRAGMENTS_MANY, n == MAX_FRAGMENTS) or broken(CHECK_FRAGMENTS_RING, n == ring.size):
        stop_at(nic, context, FAULT_FRAGMENTS, RING_TX, n, n)
        return STOPPED
    return WAIT


cdef inline int finish(nic_t *nic, context_t *context, uint32_t used) noexcept nogil:
    """Completes the descriptors of a frame that was sent: DONE, or STOPPED by its own frame."""
    if context.state != CONTEXT_RUNNING:
        return STOPPED
    cdna_step()
    consume(&context.tx, used)
    set_bit(nic.dirty, context.index)
    return DONE


cdef inline int send_gathered(nic_t *nic, context_t *context) noexcept nogil:
    """A frame of several descriptors or with an offload: DONE, WAIT or STOPPED."""
    cdef gathered_t g
    cdef uint8_t *frame = nic.segment_buffer
    cdef uint32_t len, fault = 0
    cdef int whole
    if not wire_has_room(nic) or nic.tso_context != NULL:   # before the copy, which would be made again
        return WAIT
    whole = gather_frame(nic, context, &g)
    if whole != DONE:
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
        return STOPPED
    if g.has_offload:
        perform(nic, context, frame, len, &g.offload)
    else:
        if broken(CHECK_FRAGMENTS_VNET_LONG, len > MAX_FRAME):
            stop_at(nic, context, FAULT_LENGTH, RING_TX, g.used - 1, len)
            return STOPPED
        forward_flat(nic, context, frame, len, 0, NULL)
    return finish(nic, context, g.used)
