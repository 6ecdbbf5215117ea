"""Frames on their way to the wire: gathered in the NIC's packet buffer, handed over in bursts."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from cdna.abi cimport MAX_TSO_FRAME, offload_t
from cdna.cpu cimport copy_bytes
from cdna.nic.demux cimport ETHERTYPE_VLAN, TAG_LENGTH, header_t
from cdna.nic.frame cimport BURST, frame_t, piece_t
from cdna.nic.state cimport PACKET_BUFFER, nic_t

cdef enum:
    PACKET_ROOM = MAX_TSO_FRAME + TAG_LENGTH + 64       # the longest frame, its tag, and alignment


cdef inline bint wire_has_room(const nic_t *nic) noexcept nogil:
    return nic.txq_tail < BURST and nic.packet_used <= <uint32_t>(PACKET_BUFFER - PACKET_ROOM)


cdef inline void flush_wire(nic_t *nic) noexcept nogil:
    """Offers the gathered frames to the wire; what it does not take stays for the next round."""
    cdef uint32_t waiting = nic.txq_tail - nic.txq_head
    cdef const frame_t *frame = &nic.txq[nic.txq_head]
    cdef uint64_t bytes = 0
    cdef int taken, i
    if waiting == 0:
        return
    taken = nic.wire.tx(nic.wire, &nic.txq[nic.txq_head], waiting)
    for i in range(taken):
        bytes += frame[i].len
    nic.wire.tx_frames += taken
    nic.wire.tx_bytes += bytes
    nic.txq_head += taken
    if nic.txq_head == nic.txq_tail:
        nic.txq_head = nic.txq_tail = 0
        nic.packet_used = 0


cdef inline void queue_packet(nic_t *nic, uint8_t *frame, uint32_t len, const offload_t *offload,
                              uint32_t shift) noexcept nogil:
    """Puts the frame at the packet buffer's end on the wire's queue. shift: bytes of a tag put in front."""
    cdef frame_t *entry = &nic.txq[nic.txq_tail]
    entry.data = frame
    entry.len = len
    entry.timestamp_ns = 0
    entry.has_offload = offload != NULL
    if offload != NULL:
        entry.offload = offload[0]
        entry.offload.csum_start += shift
        if offload.mss:
            entry.offload.hdr_len += shift
    nic.txq_tail += 1
    nic.packet_used = (nic.packet_used + len + 63) & ~<uint32_t>63
    if not wire_has_room(nic):
        flush_wire(nic)


cdef inline void send_pieces(nic_t *nic, const header_t *header, const piece_t *piece, uint32_t n,
                             uint32_t len, const offload_t *offload) noexcept nogil:
    """Copies a frame to the packet buffer, with the tag of an access context, and queues it."""
    cdef uint8_t *room = nic.packet_buffer + nic.packet_used
    cdef uint8_t *at = room
    cdef uint32_t i = 0, skip = 0, shift = 0
    if header.vid != 0 and not header.tagged:
        memcpy(room, piece[0].data, 12)
        room[12] = ETHERTYPE_VLAN >> 8
        room[13] = ETHERTYPE_VLAN & 0xFF
        room[14] = header.vid >> 8
        room[15] = header.vid & 0xFF
        at = room + 12 + TAG_LENGTH
        skip = 12
        shift = TAG_LENGTH
    for i in range(n):
        copy_bytes(at, piece[i].data + skip, piece[i].len - skip)
        at += piece[i].len - skip
        skip = 0
    queue_packet(nic, room, len + shift, offload, shift)
