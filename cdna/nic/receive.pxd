"""Reception: frames from the wire, to the contexts that they are for."""

from libc.stdint cimport uint8_t, uint32_t

from cdna.abi cimport COMPLETION_F_CSUM_OK, MAX_FRAME, offload_t
from cdna.nic.context cimport context_t, frame_t, nic_t
from cdna.nic.deliver cimport deliver_local
from cdna.nic.demux cimport MULTICAST_BIT, find_mac, header_t, parse_header
from cdna.nic.dma cimport piece_t
from cdna.nic.offload cimport checksum_finish
from cdna.nic.segmentation cimport segment_begin, segment_next, segmentation_t
from cdna.nic.vnet cimport keeps_offload, offload_fault


cdef inline void count_own_source(nic_t *nic, const header_t *header) noexcept nogil:
    """Counts a frame from the wire whose source address is a context's: a duplicate address, or a loop.

    Only group frames are looked at, and frames to the same address: a station with a duplicate address sends
    those first (ARP, neighbour solicitation), and other frames are spared a second search of the table.
    """
    cdef context_t *context
    if header.destination & MULTICAST_BIT or header.destination == header.source:
        context = find_mac(nic, header.source)
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
        len = segment_next(&segmentation, nic.rx_frame, MAX_FRAME)
        if len == 0:
            return matched
        matched = receive_flat(nic, nic.rx_frame, len, segmentation.flags, NULL)


cdef inline bint receive_one(nic_t *nic, frame_t *frame) noexcept nogil:
    """Delivers a frame from the wire. False: it is no frame of Ethernet's, or nobody wants it."""
    cdef header_t header
    if frame.len < 18 or (frame.len > MAX_FRAME and not frame.has_offload):
        return False
    if not frame.has_offload:
        return receive_flat(nic, frame.data, frame.len, 0, NULL)
    if offload_fault(frame.data, frame.len, &frame.offload):
        return False
    parse_header(&header, frame.data)
    if find_mac(nic, header.destination) != NULL and \
            keeps_offload(nic, NULL, &header, &frame.offload, frame.data, frame.len):
        return receive_flat(nic, frame.data, frame.len, 0, &frame.offload)
    if frame.offload.mss:
        return receive_segments(nic, frame)
    checksum_finish(frame.data, frame.len, &frame.offload)
    return receive_flat(nic, frame.data, frame.len, COMPLETION_F_CSUM_OK, NULL)


cdef inline int receive(nic_t *nic, int budget) noexcept nogil:
    """Takes frames from the wire and delivers them. Returns frames taken."""
    cdef frame_t frame[32]
    cdef int i, n
    if nic.wire.rx == NULL:
        return 0
    n = nic.wire.rx(nic.wire, frame, budget if budget < 32 else 32)
    for i in range(n):
        nic.wire.rx_frames += 1
        nic.wire.rx_bytes += frame[i].len
        nic.rx_drop_filter += not receive_one(nic, &frame[i])
    return n
