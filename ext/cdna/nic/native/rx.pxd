"""Reception into a native ring: a frame into posted buffers, each of which gets a completion.

A frame arrives as a list of pieces. It is copied once, into as many posted buffers as it needs. Without
enough buffers the frame is dropped and counted. A context with `vnet_header` gets the header in front, and
what the sender left to do in it (`offload/vnet.pxd`).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from cdna.abi cimport (
    COMPLETION_F_EOP, FAULT_ADDRESS, FAULT_FLAGS, FAULT_LENGTH, FAULT_NONE, FAULT_SEQUENCE, RING_RX,
    TAKES_CSUM, VNET_HEADER, completion_t, desc_t, offload_t, vnet_header_t,
)
from cdna.checks cimport (
    CHECK_RX_EMPTY, CHECK_RX_FLAGS, CHECK_RX_POSTED, CHECK_RX_ROOM, CHECK_SCATTER_POSTED,
    CHECK_SCATTER_POSTED_AGAIN, CHECK_SCATTER_REST, broken, cdna_step,
)
from cdna.cpu cimport prefetch_read, prefetch_write
from cdna.nic.bits cimport set_bit
from cdna.nic.context cimport MEMORY_IO_TABLE, context_t, ring_t
from cdna.nic.frame cimport MAX_PIECES, gather, piece_t
from cdna.nic.native.dma cimport dma_address, dma_gather
from cdna.nic.native.ring cimport consume, found_in, in_sequence, posted, read_desc, stop_at
from cdna.nic.offload.vnet cimport write_vnet
from cdna.nic.state cimport nic_t

cdef enum:
    AHEAD = 8                   # descriptors whose buffers are prefetched
    DESC_AHEAD = 32             # descriptors that are themselves prefetched
    MAX_BUFFERS = 256           # of one frame; smaller buffers would cost the NIC more than they hold


cdef inline void complete(ring_t *ring, uint32_t offset, uint32_t len, uint32_t flags,
                          uint16_t vlan) noexcept nogil:
    cdef completion_t *completion = &ring.completion[(ring.consumer + offset) & (ring.size - 1)]
    cdef completion_t entry
    entry.len = len
    entry.flags = flags
    entry.vlan = vlan
    entry.reserved = 0
    cdna_step()
    completion[0] = entry


cdef inline void prefetch_buffers(const nic_t *nic, const ring_t *ring, uint32_t len) noexcept nogil:
    """Fetches, for writing, the lines of a buffer that comes soon that the guest has read: first and last."""
    cdef const desc_t *desc = &ring.desc[(ring.consumer + AHEAD) & (ring.size - 1)]
    cdef const uint8_t *data = nic.memory.base + desc.addr
    if ring.consumer & 3 == 0:
        prefetch_read(&ring.desc[(ring.consumer + DESC_AHEAD) & (ring.size - 1)])
    prefetch_write(data)
    prefetch_write(data + len - 1)


cdef inline void received(nic_t *nic, context_t *context, uint32_t buffers, uint32_t len) noexcept nogil:
    cdna_step()
    consume(&context.rx, buffers)
    context.stats.rx_frames += 1
    context.stats.rx_bytes += len
    set_bit(nic.dirty, context.index)


cdef inline bint no_buffer(context_t *context) noexcept nogil:
    context.stats.rx_drop_no_buffer += 1
    return False


cdef inline uint32_t receive_fault(const context_t *context, const ring_t *ring, uint32_t offset,
                                   const desc_t *desc) noexcept nogil:
    """What is wrong with a receive descriptor, but for its address."""
    if not in_sequence(context, ring, offset, desc):
        return FAULT_SEQUENCE
    if broken(CHECK_RX_EMPTY, desc.len == 0):
        return FAULT_LENGTH
    if broken(CHECK_RX_FLAGS, desc.flags & ~<uint16_t>1):
        return FAULT_FLAGS
    return FAULT_NONE


cdef inline bint scatter(nic_t *nic, context_t *context, const piece_t *piece, uint32_t len, uint32_t flags,
                         uint16_t vlan) noexcept nogil:
    """Copies a frame into several buffers, or into one that is not contiguous. Slow path of `fill`."""
    cdef ring_t *ring = &context.rx
    cdef desc_t desc
    cdef uint32_t available = posted(ring), used = 0, done = 0, n, fault, total = 0
    if available > MAX_BUFFERS:
        available = MAX_BUFFERS
    while total < len:                                  # does it fit? nothing is written before that is known
        if broken(CHECK_SCATTER_POSTED, used == available):
            return no_buffer(context)
        read_desc(ring, ring.consumer + used, &desc)
        fault = receive_fault(context, ring, used, &desc)
        if fault:
            stop_at(nic, context, fault, RING_RX, used, found_in(&desc, fault))
            return False
        total += desc.len
        used += 1
    used = 0
    while done < len:
        # Read again: a guest that rewrites its ring meanwhile gets these lengths, checked by what is left.
        read_desc(ring, ring.consumer + used, &desc)
        n = len - done if broken(CHECK_SCATTER_REST, desc.len > len - done) else desc.len
        fault = receive_fault(context, ring, used, &desc)
        if not fault:
            fault = FAULT_LENGTH
            if not broken(CHECK_SCATTER_POSTED_AGAIN, used == available):
                fault = dma_gather(nic, context, desc.addr, piece, done, n)
        if fault:
            stop_at(nic, context, fault, RING_RX, used, found_in(&desc, fault))
            return False
        done += n
        complete(ring, used, n, flags | (COMPLETION_F_EOP if done == len else 0), vlan)
        used += 1
    received(nic, context, used, len)
    return True


cdef inline bint fill(nic_t *nic, context_t *context, const piece_t *piece, uint32_t len, uint32_t flags,
                      uint16_t vlan) noexcept nogil:
    """Copies `len` bytes into the next buffers of a running context. Returns whether that was possible."""
    cdef ring_t *ring = &context.rx
    cdef desc_t desc
    cdef uint8_t *to
    cdef uint32_t fault
    if broken(CHECK_RX_POSTED, posted(ring) == 0):
        return no_buffer(context)
    read_desc(ring, ring.consumer, &desc)
    fault = receive_fault(context, ring, 0, &desc)
    if fault:
        stop_at(nic, context, fault, RING_RX, 0, found_in(&desc, fault))
        return False
    if broken(CHECK_RX_ROOM, desc.len < len):
        return scatter(nic, context, piece, len, flags, vlan)
    to = dma_address(nic, context, desc.addr, len)
    if to == NULL:
        if context.memory == MEMORY_IO_TABLE:
            return scatter(nic, context, piece, len, flags, vlan)
        stop_at(nic, context, FAULT_ADDRESS, RING_RX, 0, found_in(&desc, FAULT_ADDRESS))
        return False
    if context.memory != MEMORY_IO_TABLE:
        prefetch_buffers(nic, ring, len)
    gather(to, piece, 0, len)
    complete(ring, 0, len, flags | COMPLETION_F_EOP, vlan)
    received(nic, context, 1, len)
    return True


cdef inline bint fill_vnet(nic_t *nic, context_t *context, const piece_t *piece, uint32_t len, uint32_t flags,
                           uint16_t vlan, const offload_t *offload) noexcept nogil:
    """As `fill`, behind a virtio-net header."""
    cdef piece_t with_header[MAX_PIECES]
    cdef vnet_header_t vnet
    cdef uint32_t n = 1, left = len
    write_vnet(&vnet, offload, piece, flags if context.takes & TAKES_CSUM else 0)
    with_header[0].data = <const uint8_t *>&vnet
    with_header[0].len = VNET_HEADER
    while left:
        with_header[n] = piece[0]
        left -= piece.len
        piece += 1
        n += 1
    if not fill(nic, context, with_header, len + VNET_HEADER, flags, vlan):
        return False
    context.stats.rx_bytes -= VNET_HEADER
    return True
