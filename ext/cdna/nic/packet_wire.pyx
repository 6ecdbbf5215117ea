"""The packet wire: an interface of the host's, through an AF_PACKET socket with mapped rings.

TPACKET_V2, not V3: a frame is here as soon as the kernel has written it, while V3 hands over blocks of
frames, the last of them up to a millisecond late. The price is a slot of 64 KiB a frame, however small. The
qdisc is not bypassed: past it, the kernel drops large frames that the device does not cut itself.

A slot of the receive ring, as PACKET_VNET_HDR and the Ethernet header make it (offsets in bytes):

     0              32             tp_mac - 10   tp_mac
    +--------------+---------+- - +-------------+-- ... --+
    | tpacket2_hdr | address |    | vnet header | frame   |
    +--------------+---------+- - +-------------+-- ... --+

and one of the transmit ring:

     0              32            42
    +--------------+-------------+-- ... --+
    | tpacket2_hdr | vnet header | frame   |
    +--------------+-------------+-- ... --+

From the transmit ring the kernel copies as many bytes as the header says there are headers and lends the rest
to the device; a device that is software (veth, a bridge) may say that it is done while the frame still waits
in some socket, and the slot would change under it. So hdr_len is the whole frame. Large frames are too much
for one such copy and go by sendmsg, a system call each, on a socket of their own.
"""
# build: unfuzzed

from libc.errno cimport EMSGSIZE, ENETDOWN, ENETUNREACH, ENODEV, ENXIO, EINVAL, errno
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from cdna.abi cimport MAX_FRAME, MAX_TSO_FRAME, vnet_header_t
from cdna.cpu cimport copy_bytes, load_u32, store_u32
from cdna.nic.demux cimport ETHERTYPE_VLAN, TAG_LENGTH
from cdna.nic.frame cimport frame_t, piece_t
from cdna.nic.offload.checksum cimport put_u16
from cdna.nic.offload.segmentation cimport segment_begin, segmentation_t
from cdna.nic.offload.vnet cimport read_vnet, write_vnet
from cdna.nic.watched_wire cimport WatchedWire, device_lost, take_change, watched_t
from cdna.nic.wire cimport down_tx, is_down, lose_tx
from cdna.nic.wire_contract cimport wire_t
from cdna.uio cimport MSG_DONTWAIT, MSG_NOSIGNAL, iovec, msghdr, sendmsg

import os

from cdna.errors import ResourceError
from cdna.nic.packet_socket import TX_FRAME, PacketSocket, kernel_takes

cdef extern from "<linux/if_packet.h>" nogil:
    enum:
        TP_STATUS_KERNEL
        TP_STATUS_USER
        TP_STATUS_VLAN_VALID
        TP_STATUS_VLAN_TPID_VALID
        TP_STATUS_AVAILABLE
        TP_STATUS_SEND_REQUEST
    struct tpacket2_hdr:
        uint32_t tp_status
        uint32_t tp_len
        uint32_t tp_snaplen
        uint16_t tp_mac
        uint32_t tp_sec
        uint32_t tp_nsec
        uint16_t tp_vlan_tci
        uint16_t tp_vlan_tpid

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void *data, size_t size, int flags)

cdef enum:
    VNET_HDR = 10               # bytes of the header on a packet socket: without num_buffers
    TX_DATA = 32                # offset of the data in a slot of the transmit ring
    ETHERNET = 14               # bytes before the payload that the MTU is about

cdef struct packet_t:
    watched_t watched           # first: see watched_wire.pxd
    int32_t fd
    int32_t sender              # socket for frames that are longer than a slot
    uint32_t rx_slots
    uint32_t rx_next            # the slot that the kernel fills next, as far as is known
    uint32_t rx_lent            # slots before rx_next that the NIC may still read
    uint32_t tx_slots
    uint32_t tx_next
    uint32_t tx_room            # bytes of a frame in a slot
    uint32_t longest            # frame, or segment of one, that the interface takes; without a tag
    uint64_t rx_oversize        # frames that no NIC here carries
    uint64_t rx_bad_offload     # frames with work left to do that no NIC here does
    uint64_t tx_oversize        # frames longer than the interface takes
    uint8_t **rx_slot
    uint8_t **tx_slot


cdef inline uint32_t before(uint32_t slot, uint32_t n, uint32_t slots) noexcept nogil:
    """The slot `n` before this one, n <= slots."""
    return slot - n if slot >= n else slot + slots - n


cdef inline uint32_t after(uint32_t slot, uint32_t slots) noexcept nogil:
    return slot + 1 if slot + 1 < slots else 0


cdef inline bint device_failed(int error) noexcept nogil:
    return error == ENETDOWN or error == ENXIO or error == ENODEV or error == ENETUNREACH


# --- receiving --------------------------------------------------------------------------------------------

cdef inline uint8_t *put_tag(const tpacket2_hdr *slot, uint8_t *frame) noexcept nogil:
    """Puts a VLAN tag that the kernel has taken off back, over the header before the frame."""
    memmove(frame - TAG_LENGTH, frame, 12)
    frame -= TAG_LENGTH
    put_u16(frame + 12, slot.tp_vlan_tpid if slot.tp_status & TP_STATUS_VLAN_TPID_VALID else ETHERTYPE_VLAN)
    put_u16(frame + 14, slot.tp_vlan_tci)
    return frame


cdef inline bint take_frame(packet_t *packet, const tpacket2_hdr *slot, frame_t *frame) noexcept nogil:
    """Makes a frame of a filled slot. False: it is none for this NIC, and counted."""
    cdef uint8_t *data = <uint8_t *>slot + slot.tp_mac
    cdef uint32_t len = slot.tp_snaplen
    cdef bint has_offload = False
    cdef vnet_header_t vnet
    if len != slot.tp_len:                  # cut to the slot
        packet.rx_oversize += 1
        return False
    memset(&vnet, 0, sizeof(vnet))
    memcpy(&vnet, data - VNET_HDR, VNET_HDR)
    if slot.tp_status & TP_STATUS_VLAN_VALID:
        data = put_tag(slot, data)
        len += TAG_LENGTH
        vnet.csum_start += TAG_LENGTH
    if read_vnet(&vnet, data, len, len, &frame.offload, &has_offload):
        packet.rx_bad_offload += 1
        return False
    if len > <uint32_t>(MAX_TSO_FRAME if has_offload and frame.offload.mss else MAX_FRAME):
        packet.rx_oversize += 1
        return False
    frame.data = data
    frame.len = len
    frame.has_offload = has_offload
    frame.timestamp_ns = <uint64_t>slot.tp_sec * 1000000000 + slot.tp_nsec
    return True


cdef inline void give_back(packet_t *packet) noexcept nogil:
    """Gives the kernel the slots that the last call lent to the NIC."""
    cdef uint32_t at = before(packet.rx_next, packet.rx_lent, packet.rx_slots)
    while packet.rx_lent:
        store_u32(&(<tpacket2_hdr *>packet.rx_slot[at]).tp_status, TP_STATUS_KERNEL)
        at = after(at, packet.rx_slots)
        packet.rx_lent -= 1


cdef int packet_rx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef packet_t *packet = <packet_t *>self.state
    cdef tpacket2_hdr *slot
    cdef int i = 0
    take_change(&packet.watched)
    give_back(packet)
    if is_down(self):
        return 0
    if self.tx_waiting:
        kick(self, packet)
    while i < n and packet.rx_lent < packet.rx_slots:
        slot = <tpacket2_hdr *>packet.rx_slot[packet.rx_next]
        if not load_u32(&slot.tp_status) & TP_STATUS_USER:
            break
        packet.rx_next = after(packet.rx_next, packet.rx_slots)
        packet.rx_lent += 1
        i += take_frame(packet, slot, &frame[i])
    return i


# --- sending ----------------------------------------------------------------------------------------------

cdef void drop_waiting(wire_t *self, packet_t *packet) noexcept nogil:
    """Takes back what the kernel has not taken; it goes on with the first of these slots, and so do we."""
    cdef uint32_t at = before(packet.tx_next, 1, packet.tx_slots)
    self.tx_waiting = 0
    while load_u32(&(<tpacket2_hdr *>packet.tx_slot[at]).tp_status) == TP_STATUS_SEND_REQUEST:
        store_u32(&(<tpacket2_hdr *>packet.tx_slot[at]).tp_status, TP_STATUS_AVAILABLE)
        packet.tx_next = at
        lose_tx(self, 1)
        at = before(at, 1, packet.tx_slots)


cdef bint kick(wire_t *self, packet_t *packet) noexcept nogil:
    """Has the kernel send what is in the ring. Returns whether it took all."""
    cdef const tpacket2_hdr *last = <tpacket2_hdr *>packet.tx_slot[before(packet.tx_next, 1, packet.tx_slots)]
    self.tx_waiting = 1
    if send(packet.fd, NULL, 0, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 and device_failed(errno):
        device_lost(self, &packet.watched)
        drop_waiting(self, packet)
        return False
    self.tx_waiting = load_u32(&last.tp_status) == TP_STATUS_SEND_REQUEST
    return not self.tx_waiting


cdef inline void fill_vnet(vnet_header_t *vnet, const frame_t *frame) noexcept nogil:
    cdef piece_t head
    head.data = frame.data
    head.len = frame.len
    write_vnet(vnet, &frame.offload if frame.has_offload else NULL, &head, 0)


cdef inline bint put_frame(wire_t *self, packet_t *packet, const frame_t *frame) noexcept nogil:
    """Puts a frame into the ring. False: the ring is full."""
    cdef tpacket2_hdr *slot = <tpacket2_hdr *>packet.tx_slot[packet.tx_next]
    cdef uint8_t *data = <uint8_t *>slot + TX_DATA
    cdef vnet_header_t vnet
    if load_u32(&slot.tp_status) != TP_STATUS_AVAILABLE:
        return False
    fill_vnet(&vnet, frame)
    vnet.hdr_len = frame.len                # copy it all: see above
    memcpy(data, &vnet, VNET_HDR)
    copy_bytes(data + VNET_HDR, frame.data, frame.len)
    slot.tp_len = VNET_HDR + frame.len
    store_u32(&slot.tp_status, TP_STATUS_SEND_REQUEST)
    packet.tx_next = after(packet.tx_next, packet.tx_slots)
    self.tx_waiting = 1
    return True


cdef inline bint send_large(wire_t *self, packet_t *packet, const frame_t *frame) noexcept nogil:
    """Sends a frame that is longer than a slot. False: not now."""
    cdef vnet_header_t vnet
    cdef iovec piece[2]
    cdef msghdr message
    fill_vnet(&vnet, frame)
    piece[0].iov_base = &vnet
    piece[0].iov_len = VNET_HDR
    piece[1].iov_base = frame.data
    piece[1].iov_len = frame.len
    memset(&message, 0, sizeof(message))
    message.msg_iov = piece
    message.msg_iovlen = 2
    if sendmsg(packet.sender, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0:
        return True
    if device_failed(errno):
        device_lost(self, &packet.watched)
    elif errno != EINVAL and errno != EMSGSIZE:
        return False
    lose_tx(self, 1)
    return True


cdef inline bint fits(const packet_t *packet, const frame_t *frame) noexcept nogil:
    cdef segmentation_t segmentation
    cdef uint32_t len = frame.len
    if frame.has_offload and frame.offload.mss and \
            not segment_begin(&segmentation, frame.data, frame.len, &frame.offload):
        len = segmentation.segment_max
    if frame.data[12] == ETHERTYPE_VLAN >> 8 and frame.data[13] == ETHERTYPE_VLAN & 0xFF:
        len -= TAG_LENGTH       # which the kernel allows beside the MTU, of this kind and once
    return len <= load_u32(&packet.longest)


cdef int packet_tx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef packet_t *packet = <packet_t *>self.state
    cdef int i = 0
    while i < n:
        if is_down(self):
            drop_waiting(self, packet)
            return i + down_tx(self, frame, n - i)
        if not fits(packet, &frame[i]):
            packet.tx_oversize += 1
            lose_tx(self, 1)
        elif frame[i].len > packet.tx_room:
            if self.tx_waiting and not kick(self, packet):        # frames keep their order
                if is_down(self):
                    continue
                return i
            if not send_large(self, packet, &frame[i]):
                return i
        elif not put_frame(self, packet, &frame[i]):
            break
        i += 1
    if self.tx_waiting:
        kick(self, packet)
    return i


# --- control ----------------------------------------------------------------------------------------------

cdef class PacketWire(WatchedWire):
    """A wire to the interface `name`, which is there already: what it receives, the NIC receives, and back.

    The host's own stack goes on seeing what the interface receives; nothing that the host sends there
    reaches the NIC. vnet_header: the NIC may send large frames, and leave checksums to the interface; what is
    received may come so in any case.

    Needs CAP_NET_RAW; ResourceError says so, or that there is no such interface. When the interface goes
    away, or down, or loses its carrier, the link is down until it is back; another one of the name will do.
    """

    cdef packet_t *packet
    cdef object _socket
    cdef void *_rings
    cdef size_t _size

    def __cinit__(self, *args, **kwargs):
        self._rings = MAP_FAILED
        self.packet = <packet_t *>self.share(sizeof(packet_t))
        self.packet.fd = self.packet.sender = -1
        self.watched = &self.packet.watched

    def __init__(self, name, *, vnet_header=True):
        self._socket = PacketSocket(name)
        self.name = name
        self._map()
        self.packet.fd = self._socket.fileno()
        self.packet.sender = self._socket.sender()
        self.c.state = self.packet
        self.c.tx = packet_tx
        self.c.rx = packet_rx
        self.c.offloads = kernel_takes() if vnet_header else 0
        self.begin_watch()

    def _map(self):
        cdef size_t i
        self._size = self._socket.size
        self._rings = mmap(NULL, self._size, PROT_READ | PROT_WRITE, MAP_SHARED, self._socket.fileno(), 0)
        if self._rings == MAP_FAILED:
            raise ResourceError(f"packet {self.name}: no memory to map its rings: {os.strerror(errno)}")
        rx, tx = self._socket.rx_slots, self._socket.tx_slots
        self.packet.rx_slots, self.packet.tx_slots = len(rx), len(tx)
        self.packet.tx_room = TX_FRAME - TX_DATA - VNET_HDR
        self.packet.rx_slot = <uint8_t **>self.share(len(rx) * sizeof(void *))
        self.packet.tx_slot = <uint8_t **>self.share(len(tx) * sizeof(void *))
        for i in range(len(rx)):
            self.packet.rx_slot[i] = <uint8_t *>self._rings + <size_t>rx[i]
        for i in range(len(tx)):
            self.packet.tx_slot[i] = <uint8_t *>self._rings + <size_t>tx[i]

    def fileno(self):
        """The socket, readable when the interface has received something; -1 after close."""
        return self._socket.fileno() if self._socket is not None else -1

    def stats(self):
        """Wire.stats, and

        rx_drop_ring: frames for which the kernel found no room in the receive ring;
        rx_oversize, rx_bad_offload: frames that are too long, or ask for work that no NIC here does;
        tx_oversize: of tx_lost, frames longer than the interface's MTU allows.
        """
        with self._lock:
            drops = self._socket.count_drops()
        return {
            **super().stats(),
            "rx_drop_ring": drops,
            "rx_oversize": self.packet.rx_oversize,
            "rx_bad_offload": self.packet.rx_bad_offload,
            "tx_oversize": self.packet.tx_oversize,
        }

    @property
    def mtu(self):
        """The interface's, as it is now."""
        return load_u32(&self.packet.longest) - ETHERNET

    def _device_fds(self):
        return [self._socket.fileno()]

    def _find_trouble(self):
        trouble = self._socket.find_trouble()
        store_u32(&self.packet.longest, self._socket.mtu() + ETHERNET)
        return trouble

    def close(self):
        """Takes the wire down and leaves the interface."""
        super().close()
        if self._socket is not None:
            self._socket.count_drops()
            self._socket.close()
            self._unmap()

    cdef _unmap(self):
        if self._rings != MAP_FAILED:
            munmap(self._rings, self._size)
            self._rings = MAP_FAILED

    def __dealloc__(self):
        if self._rings != MAP_FAILED:
            munmap(self._rings, self._size)
