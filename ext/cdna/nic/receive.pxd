"""Reception: frames from the wire, to the contexts that they are for."""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cdna.abi cimport COMPLETION_F_CSUM_OK, MAX_FRAME, MIN_FRAME, offload_t
from cdna.cpu cimport unlikely
from cdna.nic.account cimport FRAME_BYTES, begin_slice, charge_payer
from cdna.nic.context cimport RINGS_VIRTIO, context_t
from cdna.nic.demux cimport MULTICAST_BIT, find_in, find_mac, header_t, parse_header
from cdna.nic.frame cimport BURST, frame_t, piece_t
from cdna.nic.learn cimport find_receiver, seen_on_wire
from cdna.nic.mac_table cimport address_key
from cdna.nic.offload.segmentation cimport segment_begin, segment_next, segmentation_t
from cdna.nic.offload.transport_checksum cimport checksum_finish
from cdna.nic.offload.vnet cimport keeps_offload, offload_fault
from cdna.nic.state cimport nic_t
from cdna.nic.switch cimport deliver_local, rx_drop, why_not_filled
from cdna.nic.virtio.rx cimport count_unfilled
from cdna.nic.wire_contract cimport wire_t

cdef enum:
    HEADERS = 18                # bytes that `parse_header` reads: of Ethernet, and a tag


# --- one frame --------------------------------------------------------------------------------------------

cdef inline void count_unwanted(nic_t *nic, const header_t *header, const uint8_t *data,
                                uint32_t len) noexcept nogil:
    """Counts a frame that no context got: of the context whose address it has while that has no driver."""
    cdef context_t *context = NULL
    cdef piece_t piece
    if not header.destination & MULTICAST_BIT:
        context = find_in(nic, nic.own_table, address_key(header.destination, header.vid))
    if context == NULL or context.rings != RINGS_VIRTIO or context.present:
        nic.rx_drop_filter += 1
        return
    count_unfilled(context)
    piece.data = data
    piece.len = len
    rx_drop(nic, context, why_not_filled(context), &piece, len)


cdef inline void count_own_source(nic_t *nic, const header_t *header) noexcept nogil:
    """Counts a frame from the wire whose source address is a context's: a duplicate address, or a loop.

    Only group frames are looked at, and frames to the same address: a station with a duplicate address sends
    those first (ARP, neighbour solicitation), and other frames are spared a second search of the table.
    """
    cdef context_t *context
    if unlikely(header.destination & MULTICAST_BIT or header.destination == header.source):
        context = find_mac(nic, header.source, header.vid)
        if context != NULL:
            context.stats.rx_own_source += 1


cdef inline bint receive_flat(nic_t *nic, const uint8_t *data, uint32_t len, uint32_t flags,
                              const offload_t *offload) noexcept nogil:
    """Delivers a frame that lies in NIC memory. Returns whether some context wants it."""
    cdef header_t header
    cdef piece_t piece
    cdef bint matched = False
    parse_header(&header, data)
    count_own_source(nic, &header)
    if unlikely(nic.n_learned):
        seen_on_wire(nic, &header)
    piece.data = data
    piece.len = len
    deliver_local(nic, NULL, &header, &piece, len, flags, offload, &matched)
    return matched


cdef inline bint receive_segments(nic_t *nic, frame_t *frame) noexcept nogil:
    """Cuts a large frame from the wire for receivers that take none."""
    cdef segmentation_t segmentation
    cdef uint32_t len
    cdef bint matched = False
    segment_begin(&segmentation, frame.data, frame.len, &frame.offload)
    while True:
        len = segment_next(&segmentation, &nic.fragment_ids, nic.rx_frame, MAX_FRAME)
        if len == 0:
            return matched
        matched = receive_flat(nic, nic.rx_frame, len, segmentation.flags, NULL)


cdef inline void receive_short(nic_t *nic, const frame_t *frame) noexcept nogil:
    """Delivers a frame that ends before a tag would, by way of a copy that may be read to there."""
    cdef uint8_t copy[24]
    cdef header_t header
    memset(copy, 0, sizeof(copy))
    memcpy(copy, frame.data, frame.len)
    parse_header(&header, copy)
    if header.tagged:
        nic.rx_drop_invalid += 1
    elif not receive_flat(nic, copy, frame.len, 0, NULL):
        count_unwanted(nic, &header, copy, frame.len)


cdef inline void receive_work(nic_t *nic, frame_t *frame) noexcept nogil:
    """Delivers a frame with work left to do, which is done where a receiver does not take it so."""
    cdef header_t header
    cdef bint wanted
    if offload_fault(frame.data, frame.len, &frame.offload):
        nic.rx_drop_invalid += 1
        return
    parse_header(&header, frame.data)
    if find_receiver(nic, &header) != NULL and \
            keeps_offload(nic, NULL, &header, &frame.offload, frame.data, frame.len):
        wanted = receive_flat(nic, frame.data, frame.len, 0, &frame.offload)
    elif frame.offload.mss:
        wanted = receive_segments(nic, frame)
    else:
        checksum_finish(frame.data, frame.len, &frame.offload)
        wanted = receive_flat(nic, frame.data, frame.len, COMPLETION_F_CSUM_OK, NULL)
    if not wanted:
        count_unwanted(nic, &header, frame.data, frame.len)


cdef inline void receive_one(nic_t *nic, frame_t *frame) noexcept nogil:
    """Delivers a frame from the wire, or counts why not."""
    cdef header_t header
    if frame.len < MIN_FRAME or (frame.len > MAX_FRAME and not frame.has_offload):
        nic.rx_drop_invalid += 1
    elif unlikely(frame.has_offload):
        receive_work(nic, frame)
    elif unlikely(frame.len < HEADERS):
        receive_short(nic, frame)
    elif unlikely(not receive_flat(nic, frame.data, frame.len, 0, NULL)):
        parse_header(&header, frame.data)
        count_unwanted(nic, &header, frame.data, frame.len)


cdef inline int receive(nic_t *nic, int budget) noexcept nogil:
    """Takes frames from the wire and delivers them. Returns frames taken."""
    cdef frame_t *frame
    cdef wire_t *wire = nic.wire
    cdef uint32_t first, at
    cdef uint64_t bytes = 0
    if wire.rx == NULL or nic.flood.left:
        return 0
    begin_slice(nic)
    nic.payer = NULL
    if nic.rx_at == nic.rx_n:
        nic.rx_at = 0
        nic.rx_n = wire.rx(wire, nic.rxq, budget if budget < BURST else BURST)
    first = at = nic.rx_at
    while at < nic.rx_n:
        frame = &nic.rxq[at]
        at += 1
        bytes += frame.len
        nic.due -= <int32_t>(frame.len + FRAME_BYTES)
        receive_one(nic, frame)
        if unlikely(nic.due <= 0):
            charge_payer(nic)
        if unlikely(nic.over | nic.flood.left):
            break
    nic.rx_at = at
    wire.rx_frames += at - first
    wire.rx_bytes += bytes
    if at != first:
        charge_payer(nic)
    return <int>(at - first)
