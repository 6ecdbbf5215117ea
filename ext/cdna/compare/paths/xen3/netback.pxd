"""The driver domain: netback, the bridge and the native driver's queue, in one address space.

Transmit (guest to wire), a batch at a time:

    tx ring -> validate -> GNTTABOP_map -> header copied, rest mapped -> bridge -> NIC descriptors
    NIC completions -> GNTTABOP_unmap -> tx responses -> event

Receive (wire to guest):

    NIC completions -> bridge -> vif queue -> GNTTABOP_copy or _transfer -> rx responses -> event

Ports of the bridge: 0 is the NIC, 1 + i is vif i. Everything here is the driver domain's own memory, except
the shared rings and the guests' pages.
"""

from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t, uint64_t

from cdna.compare.paths.xen3.bridge cimport bridge_t
from cdna.compare.paths.xen3.domain cimport xen_domain_t, xen_t
from cdna.compare.paths.xen3.netif cimport back_ring_t
from cdna.compare.paths.xen3.public cimport (
    gnttab_copy_t, gnttab_map_grant_ref_t, gnttab_transfer_t, gnttab_unmap_grant_ref_t, mmu_update_t,
    multicall_entry_t, netif_tx_request_t,
)
from cdna.compare.host cimport domain_t, host_t
from cdna.guest_driver.queues cimport driver_t

cdef enum:
    MAX_VIFS = 63
    NIC_PORT = 0
    PKT_PROT_LEN = 64               # bytes of a frame that are copied, so that no guest changes them later
    MAX_SKB_FRAGS = 18              # pieces of a frame in guest memory
    MAX_PIECES = 19                 # and the copied header
    VIF_QUEUE = 1024                # frames that wait for a guest's receive requests; a power of two
    TX_QUANTUM = 32                 # frames of one vif in a turn
    TX_BATCH = 256                  # grants mapped by one hypercall
    DEALLOC_BATCH = 64              # unmapping waits for so many, or for a moment without other work
    RX_BATCH = 256                  # operations of one copy or transfer hypercall
    NIC_BURST = 256                 # completions taken in a turn
    NIC_BUFFER = 3072               # bytes of a receive buffer; each lies in a page of its own, and
    NIC_COLOURS = 16                # starts in one of so many cache lines, not all in the same sets
    MFN_STOCK = 256                 # frames fetched by one increase_reservation
    NO_PACKET = 0xFFFFFFFF

cdef enum PieceKind:
    PIECE_HEADER = 0                # in the packet's header buffer
    PIECE_FOREIGN = 1               # in a guest's page; index: pending transmit request
    PIECE_PAGE = 2                  # in a page of the driver domain; index: its pseudo-physical frame

cdef struct piece_t:
    uint64_t maddr
    uint16_t len
    uint16_t kind                   # PieceKind
    uint32_t index

cdef struct packet_t:               # an sk_buff
    uint16_t refs
    uint16_t pieces
    uint16_t len
    uint16_t port                   # bridge port it came in by
    uint32_t first_op               # transmit: its map operations in the batch
    uint32_t n_ops
    piece_t piece[19]

cdef struct pending_tx_t:           # a transmit request in the driver domain's hands
    uint32_t gref
    uint32_t handle
    uint16_t vif
    uint16_t id
    int16_t status                  # of the response
    uint16_t size
    uint32_t offset

cdef struct rx_slot_t:              # a receive response of the batch under way
    uint16_t vif
    uint16_t id
    uint16_t flags
    uint16_t offset
    uint16_t size
    uint16_t n_ops
    uint32_t first_op

cdef struct vif_t:
    uint32_t domid
    uint32_t port                   # event channel of the driver domain
    uint32_t disabled               # the frontend broke the protocol
    uint32_t stopped                # frames wait for receive requests
    back_ring_t tx
    back_ring_t rx
    uint32_t queue_head
    uint32_t queue_tail
    uint64_t tx_frames
    uint64_t rx_frames
    uint64_t tx_errors              # requests refused
    uint64_t rx_errors              # responses that carried an error
    uint64_t rx_dropped             # no room in the queue
    uint32_t queue[1024]            # packets

cdef struct netback_t:
    xen_t *xen
    xen_domain_t *self
    driver_t *nic
    uint8_t *memory                 # machine address 0
    uint32_t flip                   # 1: receive by page flipping, 0: by copying
    uint32_t vifs
    uint64_t tx_scheduled           # bit i: vif i has requests
    uint64_t rx_scheduled           # bit i: vif i has frames and may have receive requests
    uint64_t notify                 # bit i: vif i's frontend wants an event
    uint32_t tx_turn                # vif that goes first
    uint32_t rx_turn
    uint64_t now                    # cycles, once a turn
    bridge_t *bridge
    vif_t *vif
    uint16_t vif_of_port[128]       # by event channel port; 0xFFFF: none
    packet_t *packet
    uint32_t *free_packet           # stack
    uint32_t free_packets
    uint32_t packets
    uint64_t header_maddr           # PKT_PROT_LEN bytes for each packet
    pending_tx_t *pending
    uint32_t *free_pending          # stack
    uint32_t free_pendings
    uint32_t pendings
    uint32_t mmap_pfn               # where pending request i is mapped: mmap_pfn + i
    uint32_t *dealloc               # pending requests to be unmapped
    uint32_t n_dealloc
    uint32_t *free_page             # stack of the driver domain's own frames, by pseudo-physical number
    uint32_t free_pages
    uint32_t *nic_queue             # packets on their way to the NIC
    uint32_t nic_mask
    uint32_t nic_head
    uint32_t nic_tail
    uint32_t partial                # packet whose last completion is yet to come, or NO_PACKET
    uint32_t n_mfn
    uint32_t mfn[256]               # stock for flipping
    uint32_t n_map
    uint32_t n_batch
    uint32_t batch[256]             # packets of the transmit batch
    netif_tx_request_t chain[19]    # requests of one frame
    uint32_t n_copy
    uint32_t n_transfer
    uint32_t n_slot
    uint32_t n_done
    gnttab_map_grant_ref_t map_op[288]
    gnttab_unmap_grant_ref_t unmap_op[256]
    gnttab_copy_t copy_op[320]
    gnttab_transfer_t transfer_op[288]
    mmu_update_t mmu_op[288]
    multicall_entry_t call[640]
    rx_slot_t slot[288]
    uint32_t done[288]              # packets of the receive batch
    uint64_t nic_rx_frames
    uint64_t nic_tx_frames
    uint64_t nic_rx_dropped         # no packet buffer left

# The driver domain's domain_t.run.
cdef void netback_run(domain_t *self, host_t *host) noexcept nogil

cdef inline void packet_put(netback_t *nb, uint32_t index) noexcept nogil:
    """Drops a reference; the last one frees the packet and what it holds."""
    cdef packet_t *p = &nb.packet[index]
    cdef uint32_t i
    p.refs -= 1
    if p.refs:
        return
    for i in range(p.pieces):
        if p.piece[i].kind == PIECE_FOREIGN:
            nb.dealloc[nb.n_dealloc] = p.piece[i].index
            nb.n_dealloc += 1
        elif p.piece[i].kind == PIECE_PAGE:
            nb.free_page[nb.free_pages] = p.piece[i].index
            nb.free_pages += 1
    nb.free_packet[nb.free_packets] = index
    nb.free_packets += 1


cdef inline uint32_t packet_alloc(netback_t *nb, uint32_t port) noexcept nogil:
    """A packet with one reference and no pieces; the caller has checked free_packets."""
    cdef uint32_t index
    cdef packet_t *p
    nb.free_packets -= 1
    index = nb.free_packet[nb.free_packets]
    p = &nb.packet[index]
    p.refs = 1
    p.pieces = 0
    p.len = 0
    p.port = port
    return index


cdef inline void add_piece(packet_t *p, uint64_t maddr, uint32_t length, uint32_t kind,
                           uint32_t index) noexcept nogil:
    cdef piece_t *piece = &p.piece[p.pieces]
    piece.maddr = maddr
    piece.len = length
    piece.kind = kind
    piece.index = index
    p.pieces += 1
