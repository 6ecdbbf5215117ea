"""The NIC's own state: rings as it sees them, contexts, and the device that holds them.

Everything here lies in memory that guests never map. A guest's words enter through its context page
(`cdna.abi`) and are copied into these structs after they have been checked.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cdna.abi cimport (
    TAKES_CSUM, TAKES_ECN, TAKES_TSO4, TAKES_TSO6, TAKES_UFO, TAKES_USO4, TAKES_USO6, completion_t,
    context_page_t, desc_t, offload_t,
)
from cdna.memory cimport memory_t
from cdna.nic.virtqueue cimport virtio_t

cdef enum:
    VLAN_UNTAGGED = 0           # the context sends and receives untagged frames
    VLAN_TRUNK = 0xFFFF         # any tag, frames pass as they are
    MULTICAST_FILTERS = 16      # exact multicast addresses of one context
    IO_PAGE_PRESENT = 1         # of an I/O page table entry, beside the page number << PAGE_SHIFT
    LEARNED = 64                # addresses that are learned behind one context, at most
    NO_LIMIT = 0xFFFFFFFF       # of `context_t.longest`

# One counter each, 64 bits, in this order; `Context.stats()` names them so.
cdef packed struct stats_t:
    uint64_t tx_frames
    uint64_t tx_bytes
    uint64_t rx_frames
    uint64_t rx_bytes
    uint64_t tx_local           # of tx_frames, those that went to another context only
    uint64_t tx_drop_spoof      # source address not the context's own
    uint64_t tx_drop_vlan       # a VLAN tag that the context may not send
    uint64_t tx_drop_link       # the wire was down
    uint64_t tx_drop_filter     # nobody to deliver to, and not for the wire
    uint64_t tx_drop_invalid    # no frame, or an offload that cannot be; of guests that may send such
    uint64_t tx_drop_mtu        # longer than the context's MTU allows
    uint64_t tx_unlearned       # of tx_frames, those whose foreign source address was not learned
    uint64_t rx_drop_no_buffer  # no receive descriptor posted
    uint64_t rx_drop_no_driver  # a virtio guest without a receive queue: no frontend, or no driver yet
    uint64_t rx_drop_link       # the guest's cable is out
    uint64_t rx_drop_mtu        # longer than the context's MTU allows
    uint64_t rx_drop_stopped    # the context was stopped by a fault
    uint64_t rx_own_source      # from the wire, in our name: group frames, and frames to their own source
    uint64_t interrupts         # bits of this context in the interrupt vectors
    uint64_t doorbells
    uint64_t faults

cdef struct ring_t:
    desc_t *desc
    uint32_t size               # a power of two
    uint32_t producer           # free-running; what the guest has announced and the NIC accepted
    uint32_t consumer           # free-running; next descriptor to use
    uint32_t seq                # number that the next descriptor must carry
    uint32_t seq_mask           # modulus - 1; the modulus is at least twice the ring
    completion_t *completion    # receive only

cdef struct context_t:
    uint32_t index
    uint32_t state              # ContextState
    uint32_t protection         # Protection
    uint32_t owner              # domain id of the guest
    context_page_t *page
    uint64_t mac                # six bytes in wire order, in the low 48 bits of a little-endian word
    uint16_t vlan               # VLAN_UNTAGGED, VLAN_TRUNK or a VLAN id
    uint8_t anti_spoof
    uint8_t promiscuous
    uint8_t all_multicast
    uint8_t rate_limited
    uint8_t vnet_header         # frames start with a vnet_header_t, and may be large or lack a checksum
    uint8_t polled              # the owner maps no doorbell vector: the NIC looks at its page itself
    uint32_t takes              # Takes: what may be left to do in frames for it
    uint32_t present            # 1: a virtio guest that receives, so its address is known here
    uint32_t longest            # bytes of an untagged frame: Ethernet header and MTU, or NO_LIMIT
    virtio_t *virtio            # the rings of a virtio guest (virtqueue.pxd), or NULL
    ring_t tx
    ring_t rx
    uint64_t *io_page           # I/O page table, or NULL; index: I/O address >> PAGE_SHIFT
    uint32_t io_pages
    uint32_t weight
    int64_t deficit             # bytes that it may still send in this turn (deficit round robin)
    double tokens               # bytes that the rate limit allows now
    double tokens_per_cycle
    double tokens_max
    uint64_t tokens_at          # cycle count of the last refill
    # Interrupt moderation, per context, as ethtool -C sets it.
    uint32_t coalesce_frames    # descriptors completed before the context is reported, or
    uint64_t coalesce_cycles    # cycles since the first one that was not
    uint32_t tx_reported        # consumer indices when it was last reported
    uint32_t rx_reported
    uint64_t unreported_since
    uint32_t fault              # Fault
    uint32_t fault_ring         # Ring
    uint32_t fault_index        # descriptor index, free-running
    uint32_t fault_expected     # sequence number, or the limit that was broken
    uint32_t fault_found
    uint32_t multicast_filters
    uint64_t multicast[16]
    stats_t stats
    # Addresses behind the guest: see learn.pxd.
    uint32_t learned            # entries of `learned_at` in use
    uint32_t learn_hand         # of them, the one that is looked at next for its age
    uint32_t learned_at[64]     # indices in `nic_t.learned`

# What the VMM reads of a context on the data path; a cache line of its own, written once a round at most.
cdef struct progress_t:
    uint32_t state              # ContextState
    uint32_t tx_consumer
    uint32_t rx_consumer
    uint8_t _pad[52]

# What the wire and the NIC hand each other. `data` stays valid until the next call of the same function, and
# the NIC may change it.
cdef struct frame_t:
    uint8_t *data
    uint32_t len                # to MAX_FRAME, or to MAX_TSO_FRAME where offload.mss is set
    uint32_t has_offload        # 1: `offload` says what is left to do; only where both sides take such frames
    offload_t offload
    uint64_t timestamp_ns       # when the wire received it; 0: now

cdef struct wire_t:
    # Sends up to n frames; returns how many it took. The rest is offered again later.
    int (*tx)(wire_t *self, frame_t *frame, int n) noexcept nogil
    # Receives up to n frames; returns how many.
    int (*rx)(wire_t *self, frame_t *frame, int n) noexcept nogil
    void *state
    uint32_t link               # 1: up
    uint32_t offloads           # Takes: what tx takes; rx may give frames with an offload in any case
    uint32_t tx_waiting         # 1: it took frames that its device has not; call rx soon, whatever arrives
    uint64_t tx_frames
    uint64_t tx_bytes
    uint64_t rx_frames
    uint64_t rx_bytes

# A capture under way: see capture_ring.pxd.
cdef packed struct capture_page_t:
    uint64_t producer           # written by the engine
    uint8_t _pad0[56]
    uint64_t consumer           # written by the reader
    uint8_t _pad1[56]
    uint64_t lost               # frames, written by the engine
    uint64_t ended              # 1: nothing is added any more
    uint8_t _pad2[48]
    uint64_t lost_of[4096]      # of `lost`, by context

cdef struct capture_ring_t:
    capture_ring_t *next        # the next capture that is under way, or NULL
    capture_page_t *page
    uint8_t *records
    uint64_t size               # bytes of records, a power of two
    uint64_t producer
    uint32_t snaplen            # bytes kept of a frame
    uint64_t wanted[64]         # bit i: context i is captured
    # The time of day, looked at once in a while; between two looks the cycle counter tells it.
    double ns_per_cycle
    uint64_t clock_cycles       # between two looks
    uint64_t clock_at           # cycle count of the last look
    uint64_t clock_ns           # what it saw
    uint64_t last_ns            # the last stamp

cdef enum:
    BURST = 32                  # frames between the NIC and its wire at a time
    PACKET_BUFFER = 1048576     # bytes; holds a burst of frames of 9018 bytes, and several of 64 KiB

cdef struct mac_entry_t:
    uint64_t key                # address with MAC_VALID set; 0: empty
    uint32_t context
    uint32_t reserved

cdef struct learned_t:          # an address that is not a context's own: see learn.pxd
    uint64_t key                # address and VLAN, with LEARNED_VALID set; 0: empty
    uint64_t seen               # cycle count when it was last a source address
    uint32_t context            # the one behind which it was seen first; it counts as one of its LEARNED
    uint16_t position           # in that context's `learned_at`
    uint16_t on_wire            # 1: seen on the wire since, so frames for it go there

cdef struct irq_ring_t:         # circular buffer of interrupt bit vectors, in VMM memory (section 3.2)
    uint64_t *vector            # slots * words
    uint32_t slots              # a power of two
    uint32_t words              # 64-bit words in one vector
    uint32_t producer           # written by the NIC
    uint8_t _pad0[44]
    uint32_t consumer           # written by the VMM
    uint32_t armed              # 1: the VMM sleeps on the event descriptor
    int event_fd                # or -1
    uint8_t _pad1[52]

cdef struct nic_t:
    memory_t *memory
    context_t *context
    progress_t *progress        # by context
    uint32_t contexts
    uint32_t words              # (contexts + 63) / 64
    # first level of the doorbell vectors: bit i of word i/64, context i has a doorbell
    uint64_t *doorbell
    uint64_t *tx_active         # contexts with descriptors to send
    uint64_t *polled            # contexts whose pages the NIC looks at itself
    uint64_t *dirty             # contexts whose consumer indices this round moved
    uint64_t *unreported        # contexts with completions that moderation holds back
    uint64_t *updated           # contexts to report in the next interrupt
    uint64_t *enabled           # contexts that want interrupts
    uint64_t *running
    uint64_t *virtio            # contexts with rings of virtio that may be ready
    uint64_t *virtio_used       # of them, those with used buffers to tell the driver of
    uint32_t n_running
    uint32_t n_polled
    uint32_t n_promiscuous
    uint32_t poll_cursor        # where the next sweep of polled contexts starts
    uint32_t tx_cursor          # where the next turn of transmission starts
    mac_entry_t *mac_table      # contexts that receive, by their own addresses
    mac_entry_t *own_table      # all contexts, by their own addresses: none of them is learned
    uint32_t mac_mask
    uint32_t n_learned          # entries of `learned` in use
    learned_t *learned
    uint32_t learn_shift        # 64 less the binary logarithm of the number of sets
    uint64_t learn_secret       # odd: in which set an address is found is not for a guest to choose
    uint64_t learn_age          # cycles after which an address that was silent is forgotten
    uint64_t learn_hold         # cycles of silence after which it may be learned elsewhere
    uint64_t now                # cycle count at the beginning of the round
    wire_t *wire
    irq_ring_t *irq
    uint64_t irq_looked         # cycle count when held-back completions were last looked at
    uint64_t irq_raised         # physical interrupts
    uint8_t *packet_buffer
    uint32_t packet_used        # bytes
    frame_t txq[32]             # frames in the packet buffer, on their way to the wire
    uint32_t txq_head
    uint32_t txq_tail
    uint8_t *segment_buffer     # a frame of several descriptors, or one to be segmented: MAX_TSO_FRAME bytes
    void *tso                   # segmentation_t of the segmentation under way
    context_t *tso_context      # whose it is, or NULL
    uint8_t *tso_frame          # the next segment
    uint8_t *rx_frame           # a segment of a large frame from the wire: MAX_FRAME bytes
    uint32_t tso_ready          # its length; 0: not made yet
    uint64_t rx_drop_filter     # frames from the wire for no context
    uint64_t rx_drop_invalid    # frames from the wire of an impossible length, tag or offload
    capture_ring_t *capture     # where copies of frames go, or NULL
    uint64_t faults             # contexts stopped since the start
    # control plane: see engine.pxd
    uint32_t alive              # 1: a thread or process runs the engine
    uint32_t stop
    uint32_t pause
    uint32_t paused
    uint32_t yields             # 1: give the core away when idle
    int wake_fd                 # event descriptor of a loop that may sleep, or -1
    int epoll_fd                # where such a loop waits for kicks, or -1
    uint64_t epoch              # odd while a round is under way
    uint64_t rounds
    uint64_t frames
    uint64_t idle_cycles
    uint64_t busy_cycles
    uint32_t link               # of the wire, as the context pages show it
