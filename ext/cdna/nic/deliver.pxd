"""Delivery: a frame into the receive buffers of a context, from the wire or from another context.

A frame arrives as a list of pieces. It is copied once, into as many posted buffers as it needs; each of
them gets a completion. Without enough buffers the frame is dropped and counted. A context with `vnet_header`
gets the header in front, and what the sender left to do in it (`vnet.pxd`).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cdna.abi cimport (
    COMPLETION_F_EOP, CONTEXT_RUNNING, FAULT_ADDRESS, FAULT_FLAGS, FAULT_LENGTH, FAULT_NONE, FAULT_SEQUENCE,
    PROTECTION_IOMMU, RING_RX, TAKES_CSUM, VNET_HEADER, completion_t, desc_t, offload_t, vnet_header_t,
)
from cdna.checks cimport (
    CHECK_RX_EMPTY, CHECK_RX_FLAGS, CHECK_RX_POSTED, CHECK_RX_ROOM, CHECK_SCATTER_POSTED,
    CHECK_SCATTER_POSTED_AGAIN, CHECK_SCATTER_REST, PLANT_DESC_ADDR, again_u64, broken, cdna_step,
)
from cdna.cpu cimport lowest_bit, prefetch_read, prefetch_write
from cdna.nic.capture_ring cimport (
    CAPTURE_IN, CAPTURE_NOT_DROPPED, CAPTURE_RX_DROP_LINK, CAPTURE_RX_DROP_MTU, CAPTURE_RX_DROP_NO_BUFFER,
    CAPTURE_RX_DROP_NO_DRIVER, CAPTURE_RX_DROP_STOPPED, capture,
)
from cdna.nic.context cimport VLAN_TRUNK, context_t, nic_t, ring_t
from cdna.nic.demux cimport (
    ETHERTYPE_VLAN, MULTICAST_BIT, TAG_LENGTH, admits, header_t, wants_multicast,
)
from cdna.nic.dma cimport MAX_PIECES, dma_address, dma_gather, gather, piece_t
from cdna.nic.learn cimport find_receiver, is_behind
from cdna.nic.ring cimport consume, found_in, in_sequence, posted, read_desc, set_bit, stop_at
from cdna.nic.virtio_rx cimport fill_virtio
from cdna.nic.vnet cimport exceeds_mtu, write_vnet

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
        if context.protection == PROTECTION_IOMMU:
            return scatter(nic, context, piece, len, flags, vlan)
        stop_at(nic, context, FAULT_ADDRESS, RING_RX, 0, found_in(&desc, FAULT_ADDRESS))
        return False
    if context.protection != PROTECTION_IOMMU:
        prefetch_buffers(nic, ring, len)
    to += again_u64(PLANT_DESC_ADDR, desc.addr, &ring.desc[ring.consumer & (ring.size - 1)].addr) - desc.addr
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


cdef inline uint32_t why_not_filled(const context_t *context) noexcept nogil:
    """Why a frame that is for a context was not written to its buffers: a CaptureReason."""
    if context.state != CONTEXT_RUNNING:
        return CAPTURE_RX_DROP_STOPPED
    if context.virtio != NULL and not context.virtio.link:
        return CAPTURE_RX_DROP_LINK
    if context.virtio != NULL and context.virtio.receiving == 0:
        return CAPTURE_RX_DROP_NO_DRIVER
    return CAPTURE_RX_DROP_NO_BUFFER


cdef inline bint deliver(nic_t *nic, context_t *context, const piece_t *piece, uint32_t len, uint32_t flags,
                         uint16_t vlan, const offload_t *offload) noexcept nogil:
    """Delivers a frame of `len` bytes to a running context. Returns whether it was."""
    cdef bint done
    cdef uint32_t reason = CAPTURE_NOT_DROPPED
    if context.virtio != NULL:
        done = fill_virtio(nic, context, piece, len, flags, offload)
    elif context.vnet_header:
        done = fill_vnet(nic, context, piece, len, flags, vlan, offload)
    else:
        done = fill(nic, context, piece, len, flags, vlan)
    if nic.capture != NULL:
        if not done:
            reason = why_not_filled(context)
        capture(nic.capture, context.index, CAPTURE_IN, reason, piece, len)
    return done


cdef inline bint rx_drop(nic_t *nic, const context_t *context, uint32_t reason, const piece_t *piece,
                         uint32_t len) noexcept nogil:
    """Shows a frame that was dropped, and counted, to the captures. Returns False."""
    if nic.capture != NULL:
        capture(nic.capture, context.index, CAPTURE_IN, reason, piece, len)
    return False


cdef inline bint deliver_tagged(nic_t *nic, context_t *context, const header_t *header, const piece_t *piece,
                                uint32_t len, uint32_t flags, const offload_t *offload) noexcept nogil:
    """Delivers a frame, its VLAN tag put on or taken off as the context wants it.

    A frame with an offload only goes where its bytes stay as they are (`vnet.keeps_offload`).
    """
    cdef piece_t with_tag[MAX_PIECES - 1]
    cdef uint8_t tag[4]
    cdef uint32_t n = 0, left = len
    cdef bint on_wire = context.vlan == VLAN_TRUNK and header.vid != 0
    if context.state != CONTEXT_RUNNING:
        context.stats.rx_drop_stopped += 1
        return rx_drop(nic, context, CAPTURE_RX_DROP_STOPPED, piece, len)
    if len > context.longest and exceeds_mtu(context, header, piece.data, len, offload):
        context.stats.rx_drop_mtu += 1
        return rx_drop(nic, context, CAPTURE_RX_DROP_MTU, piece, len)
    if header.vid == 0 or header.tagged == on_wire:
        return deliver(nic, context, piece, len, flags, header.vid, offload)
    # The first piece holds at least the two addresses and a tag: all the NIC's headers do.
    with_tag[0].data = piece.data
    with_tag[0].len = 12
    if on_wire:
        tag[0] = ETHERTYPE_VLAN >> 8
        tag[1] = ETHERTYPE_VLAN & 0xFF
        tag[2] = header.vid >> 8
        tag[3] = header.vid & 0xFF
        with_tag[1].data = tag
        with_tag[1].len = TAG_LENGTH
        with_tag[2].data = piece.data + 12
        with_tag[2].len = piece.len - 12
        len += TAG_LENGTH
    else:
        with_tag[1].data = piece.data + 12 + TAG_LENGTH
        with_tag[1].len = piece.len - 12 - TAG_LENGTH
        with_tag[2].data = NULL
        with_tag[2].len = 0
        len -= TAG_LENGTH
    left -= piece.len
    n = 3
    while left:
        piece += 1
        with_tag[n] = piece[0]
        left -= piece.len
        n += 1
    return deliver(nic, context, with_tag, len, flags, header.vid, NULL)


cdef inline uint32_t flood(nic_t *nic, const context_t *sender, const header_t *header, const piece_t *piece,
                           uint32_t len, uint32_t flags, bint multicast, bint *matched) noexcept nogil:
    """Delivers to every running context that wants it, except the sender: multicast, or promiscuous ones."""
    cdef uint32_t word, n = 0
    cdef uint64_t bits
    cdef context_t *context
    cdef bint wanted
    for word in range(nic.words):
        bits = nic.running[word]
        while bits:
            context = &nic.context[word * 64 + lowest_bit(bits)]
            bits &= bits - 1
            if context == sender or not admits(context, header):
                continue
            wanted = wants_multicast(context, header.destination) if multicast else context.promiscuous != 0
            if wanted:
                matched[0] = True
                n += deliver_tagged(nic, context, header, piece, len, flags, NULL)
    return n


cdef inline uint32_t deliver_local(nic_t *nic, const context_t *sender, const header_t *header,
                                   const piece_t *piece, uint32_t len, uint32_t flags,
                                   const offload_t *offload, bint *matched) noexcept nogil:
    """Delivers to the contexts of this NIC; `matched`: one of them wants it. Returns deliveries.

    offload: what is left to do, or NULL; not NULL only where the one receiver takes it so.
    """
    cdef context_t *context
    cdef uint32_t n = 0
    matched[0] = False
    if header.destination & MULTICAST_BIT:
        return flood(nic, sender, header, piece, len, flags, True, matched)
    context = find_receiver(nic, header)
    if context != NULL and admits(context, header) and not is_behind(context, sender, header):
        matched[0] = True
        if not context.promiscuous or context.state != CONTEXT_RUNNING or context == sender:
            n = deliver_tagged(nic, context, header, piece, len, flags, offload)
    if nic.n_promiscuous:
        n += flood(nic, sender, header, piece, len, flags, False, matched)
    return n
