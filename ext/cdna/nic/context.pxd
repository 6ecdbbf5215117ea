"""A context as the NIC sees it: its rings, its memory, its settings, its counters.

All of it lies in memory that guests never map. A guest's words enter through its context page (`cdna.abi`) or
its rings, and are copied here after they have been checked.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cdna.abi cimport PROTECTION_IOMMU, PROTECTION_TABLE, completion_t, context_page_t, desc_t
from cdna.nic.virtio.queue cimport virtio_t

cdef enum:                      # `context_t.flood_limits`, bits
    LIMIT_STORM = 1
    LIMIT_FLOOD = 2

cdef enum:
    VLAN_UNTAGGED = 0           # the context sends and receives untagged frames
    VLAN_TRUNK = 0xFFFF         # any tag, frames pass as they are
    MULTICAST_FILTERS = 16      # exact multicast addresses of one context
    IO_PAGE_PRESENT = 1         # of an I/O page table entry, beside the page number << PAGE_SHIFT
    NO_LIMIT = 0xFFFFFFFF       # of `context_t.longest`

cdef enum:                      # `context_t.rings`
    RINGS_NONE = 0              # no device yet: nothing is sent, and no buffer is there
    RINGS_NATIVE = 1            # `context_t.tx` and `rx`; the guest rings a doorbell
    RINGS_VIRTIO = 2            # `context_t.virtio`; the guest kicks

cdef enum:                      # `context_t.memory`
    MEMORY_MACHINE = 0          # machine addresses
    MEMORY_IO_TABLE = 1         # I/O addresses, by `context_t.io_page`
    MEMORY_GUEST_TABLE = 2      # guest addresses, by the regions of `virtio_t.memory`

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
    uint64_t tx_drop_storm      # a broadcast or multicast beyond the context's storm limit
    uint64_t tx_unflooded       # of tx_frames, those that promiscuous contexts did not get: the flood limit
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

# A token bucket of frames.
cdef struct frame_bucket_t:
    double frames               # that may pass now
    double frames_per_cycle
    double frames_max
    uint64_t refilled_at        # cycle count

# Cycles of the NIC's core that were spent for a context: see account.pxd.
cdef struct account_t:
    uint64_t tx                 # its turns, and what its frames caused at their receivers
    uint64_t rx                 # what its own receive rings cost beyond a buffer of one piece
    uint64_t signal             # interrupts
    uint64_t control            # standstills of the engine, for what its guest or its VMM asked
    uint64_t round              # number of the last round that it was charged in
    uint64_t in_round           # cycles of that round
    uint64_t turn               # number of the last round in which it had a turn
    uint64_t worst              # cycles of the round that it took most of

cdef struct context_t:
    uint32_t index
    uint32_t state              # ContextState
    uint8_t protection          # Protection
    uint8_t rings               # RINGS_: what the guest posts buffers in
    uint8_t memory              # MEMORY_: what an address in a descriptor means
    uint32_t owner              # domain id of the guest
    context_page_t *page
    uint64_t mac                # six bytes in wire order, in the low 48 bits of a little-endian word
    uint16_t vlan               # VLAN_UNTAGGED, VLAN_TRUNK or a VLAN id
    uint8_t anti_spoof
    uint8_t promiscuous
    uint8_t all_multicast
    uint8_t rate_limited
    uint8_t vnet_header         # frames start with a vnet_header_t, and may be large or lack a checksum
    uint8_t flood_limits        # LIMIT_STORM, LIMIT_FLOOD: which buckets below hold
    uint8_t polled              # the owner maps no doorbell vector: the NIC looks at its page itself
    uint32_t takes              # Takes: what may be left to do in frames for it
    uint32_t present            # 1: a virtio guest that receives, so its address is known here
    uint32_t longest            # bytes of an untagged frame: Ethernet header and MTU, or NO_LIMIT
    virtio_t *virtio            # the rings of RINGS_VIRTIO (virtio/queue.pxd)
    ring_t tx
    ring_t rx
    uint64_t *io_page           # I/O page table, or NULL; index: I/O address >> PAGE_SHIFT
    uint32_t io_pages
    uint32_t weight
    int64_t deficit             # what is left of its turn: cycles, or bytes (schedule.pxd); below 0: a debt
    uint64_t owed               # cycles of it that its own rings cost, beyond what it was given since
    account_t time
    context_t *signal_payer     # whose frame for many it is to be told of; NULL: it is its own affair
    double tokens               # bytes that the rate limit allows now
    double tokens_per_cycle
    double tokens_max
    uint64_t tokens_at          # cycle count of the last refill
    frame_bucket_t storm        # broadcasts and multicasts that it sends
    frame_bucket_t flood        # frames to unknown destinations that promiscuous contexts get
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


cdef inline uint8_t memory_of(uint32_t protection) noexcept nogil:
    """What the addresses of a context with this Protection mean: MEMORY_."""
    if protection == PROTECTION_IOMMU:
        return MEMORY_IO_TABLE
    return MEMORY_GUEST_TABLE if protection == PROTECTION_TABLE else MEMORY_MACHINE
