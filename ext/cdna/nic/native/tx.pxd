"""Transmission from a native ring: a context's descriptors into frames.

The way of a frame: its descriptor is read once and checked; its first 64 bytes are copied to the NIC, which
decides by that copy alone (`switch.pxd`); the rest is copied once, to the packet buffer for the wire or
straight into the receive buffer of another context. A guest that changes the bytes meanwhile changes its own
payload and nothing that was decided. Frames of several descriptors and those that need work are collected
first (`gather.pxd`).
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy

from cdna.abi cimport (
    CONTEXT_RUNNING, DESC_F_EOP, FAULT_ADDRESS, FAULT_LENGTH, FAULT_OFFLOAD, FAULT_SEQUENCE, MAX_FRAME,
    MIN_FRAME, RING_TX, VNET_HEADER, desc_t, offload_t, vnet_header_t,
)
from cdna.checks cimport CHECK_TX_LONG, CHECK_TX_SHORT, CHECK_TX_VNET_LONG, CHECK_TX_VNET_SHORT, broken
from cdna.cpu cimport prefetch_read, unlikely
from cdna.nic.account cimport charge
from cdna.nic.bits cimport clear_bit
from cdna.nic.context cimport MEMORY_IO_TABLE, context_t, ring_t
from cdna.nic.demux cimport header_t, parse_header
from cdna.nic.frame cimport HEADER_COPY, piece_t
from cdna.nic.native.dma cimport dma_address
from cdna.nic.native.gather cimport finish, send_gathered
from cdna.nic.native.ring cimport found_in, in_sequence, posted, read_desc, stop_at
from cdna.nic.offload.vnet cimport OFFLOAD_COPY, beyond_copy, keeps_offload, read_vnet
from cdna.nic.outcome cimport DONE, GATHER, STOPPED, WAIT
from cdna.nic.rate cimport has_tokens
from cdna.nic.state cimport nic_t
from cdna.nic.switch cimport forward
from cdna.nic.wire_queue cimport wire_has_room

cdef enum:
    AHEAD = 16                  # descriptors whose frames are prefetched
    DESC_AHEAD = 32             # descriptors that are themselves prefetched


# --- one frame ---------------------------------------------------------------------------------------------

cdef inline const uint8_t *frame_data(nic_t *nic, context_t *context, const desc_t *desc) noexcept nogil:
    """The bytes of a descriptor; NULL: they are not contiguous, or the context was stopped."""
    cdef const uint8_t *data = dma_address(nic, context, desc.addr, desc.len)
    if data == NULL and context.memory != MEMORY_IO_TABLE:
        stop_at(nic, context, FAULT_ADDRESS, RING_TX, 0, found_in(desc, FAULT_ADDRESS))
    return data


cdef inline int gather_or_stopped(const context_t *context) noexcept nogil:
    """What follows when `frame_data` has found no contiguous bytes."""
    return GATHER if context.state == CONTEXT_RUNNING else STOPPED


cdef inline int send_simple(nic_t *nic, context_t *context, const desc_t *desc) noexcept nogil:
    """A frame in one contiguous buffer: DONE, WAIT, GATHER or STOPPED."""
    cdef uint8_t copy[HEADER_COPY]
    cdef header_t header
    cdef piece_t piece[2]
    cdef uint32_t head = desc.len if desc.len < HEADER_COPY else HEADER_COPY
    cdef const uint8_t *data = frame_data(nic, context, desc)
    if data == NULL:
        return gather_or_stopped(context)
    if head < HEADER_COPY:
        memcpy(copy, data, head)
    else:
        memcpy(copy, data, HEADER_COPY)
    parse_header(&header, copy)
    piece[0].data = copy
    piece[0].len = head
    piece[1].data = data + head
    piece[1].len = desc.len - head
    return forward(nic, context, &header, piece, 2 if desc.len > head else 1, desc.len, 0, NULL)


cdef inline int send_vnet(nic_t *nic, context_t *context, const desc_t *desc) noexcept nogil:
    """A frame behind a virtio-net header in one contiguous buffer: DONE, WAIT, GATHER or STOPPED."""
    cdef uint8_t copy[OFFLOAD_COPY]
    cdef vnet_header_t vnet
    cdef header_t header
    cdef piece_t piece[2]
    cdef offload_t offload
    cdef bint wanted = False
    cdef uint32_t len = desc.len - VNET_HEADER, head = len if len < OFFLOAD_COPY else OFFLOAD_COPY
    cdef const uint8_t *data = frame_data(nic, context, desc)
    if data == NULL:
        return gather_or_stopped(context)
    memcpy(&vnet, data, VNET_HEADER)
    data += VNET_HEADER
    if beyond_copy(&vnet, len):
        return GATHER
    memcpy(copy, data, head)
    if read_vnet(&vnet, copy, head, len, &offload, &wanted):
        stop_at(nic, context, FAULT_OFFLOAD, RING_TX, 0, vnet.gso_size if vnet.gso_type else vnet.csum_start)
        return STOPPED
    parse_header(&header, copy)
    if wanted:
        if not keeps_offload(nic, context, &header, &offload, copy, len):
            return GATHER
    elif broken(CHECK_TX_VNET_LONG, len > MAX_FRAME):
        stop_at(nic, context, FAULT_LENGTH, RING_TX, 0, desc.len)
        return STOPPED
    piece[0].data = copy
    piece[0].len = head
    piece[1].data = data + head
    piece[1].len = len - head
    return forward(nic, context, &header, piece, 2 if len > head else 1, len, 0, &offload if wanted else NULL)


cdef inline int send_next(nic_t *nic, context_t *context) noexcept nogil:
    """The next frame of a context: DONE, WAIT (for the wire or for the rest of the frame) or STOPPED."""
    cdef ring_t *ring = &context.tx
    cdef desc_t desc
    cdef int done
    read_desc(ring, ring.consumer, &desc)
    if not in_sequence(context, ring, 0, &desc):
        stop_at(nic, context, FAULT_SEQUENCE, RING_TX, 0, desc.seq)
        return STOPPED
    if desc.flags != DESC_F_EOP:
        return send_gathered(nic, context)
    if context.vnet_header:
        if broken(CHECK_TX_VNET_SHORT, desc.len < <uint32_t>(MIN_FRAME + VNET_HEADER)):
            stop_at(nic, context, FAULT_LENGTH, RING_TX, 0, desc.len)
            return STOPPED
        done = send_vnet(nic, context, &desc)
    elif broken(CHECK_TX_SHORT, desc.len < MIN_FRAME) or broken(CHECK_TX_LONG, desc.len > MAX_FRAME):
        stop_at(nic, context, FAULT_LENGTH, RING_TX, 0, desc.len)
        return STOPPED
    else:
        done = send_simple(nic, context, &desc)
    if done == GATHER:
        return send_gathered(nic, context)
    return finish(nic, context, 1) if done == DONE else done


# --- a turn ------------------------------------------------------------------------------------------------

cdef inline void prefetch_ahead(const nic_t *nic, const ring_t *ring) noexcept nogil:
    """Fetches what the guest wrote last of a frame that comes soon: its first line and its last.

    They lie in the other core's cache, and a miss there costs as much as the rest of the frame. A prefetch
    never faults, whatever the address says.
    """
    cdef const desc_t *desc = &ring.desc[(ring.consumer + AHEAD) & (ring.size - 1)]
    cdef const uint8_t *data = nic.memory.base + desc.addr
    if ring.consumer & 3 == 0:
        prefetch_read(&ring.desc[(ring.consumer + DESC_AHEAD) & (ring.size - 1)])
    prefetch_read(data)
    prefetch_read(data + desc.len - 1)


cdef inline int native_turn(nic_t *nic, context_t *context, int budget, bint *stuck) noexcept nogil:
    """Sends for one context until its deficit, its ring or the budget ends. `stuck`: the wire has no room."""
    cdef int n = 0, done = DONE
    cdef bint simple = context.memory != MEMORY_IO_TABLE
    while n < budget and context.deficit > 0 and not nic.over and posted(&context.tx) and has_tokens(context):
        if simple:
            prefetch_ahead(nic, &context.tx)
        done = send_next(nic, context)
        if done != DONE or nic.tso_context == context:
            break
        n += 1
        if unlikely(nic.due <= 0):
            charge(nic, context, &context.time.tx)
    if context.state != CONTEXT_RUNNING or not posted(&context.tx):
        clear_bit(nic.tx_active, context.index)
        if context.deficit > 0 or not nic.timed:
            context.deficit = 0
    elif done == WAIT:
        if wire_has_room(nic) and nic.tso_context == NULL:  # the rest is missing: its doorbell comes
            clear_bit(nic.tx_active, context.index)
        else:
            stuck[0] = True
    return n
