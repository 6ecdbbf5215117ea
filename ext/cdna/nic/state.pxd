"""The NIC's own state: the device that holds the contexts, beside them tables, queues and counters.

Everything here lies in memory that guests never map. The engine writes it; who else does has the engine stand
still first (`Nic.quiesced`).
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from cdna.memory cimport memory_t
from cdna.nic.capture_ring cimport capture_ring_t
from cdna.nic.context cimport context_t, progress_t
from cdna.nic.frame cimport BURST, frame_t
from cdna.nic.irq_ring cimport irq_ring_t
from cdna.nic.mac_table cimport learned_t, mac_entry_t
from cdna.nic.offload.fragment_id cimport fragment_ids_t
from cdna.nic.virtio.slow_signals cimport signaller_t
from cdna.nic.wire_contract cimport wire_t

cdef enum:
    PACKET_BUFFER = 1048576     # bytes; holds a burst of frames of 9018 bytes, and several of 64 KiB

# A frame for many receivers that has not reached all of them: the others get it in the next rounds.
cdef struct flood_t:
    bint left                   # there is such a frame
    bint multicast              # for those that want its group; else for promiscuous contexts
    context_t *sender           # whose time it takes; NULL: the wire's
    uint8_t *frame              # a copy, MAX_FRAME bytes
    uint32_t len
    uint32_t flags
    uint16_t vid                # the frame's VLAN, which its bytes may not say
    uint32_t word               # of nic.running, where to go on
    uint64_t bits               # of that word, the contexts that were not looked at

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
    uint64_t *promiscuous       # contexts that see everybody's frames, running or not
    uint64_t *virtio            # contexts with rings of virtio that may be ready
    uint64_t *virtio_used       # of them, those with used buffers to tell the driver of
    uint32_t n_running
    uint32_t n_polled
    uint32_t n_promiscuous
    uint32_t n_trunks           # contexts whose own addresses are theirs in every VLAN
    uint32_t poll_cursor        # where the next sweep of polled contexts starts
    uint32_t tx_cursor          # where the next turn of transmission starts
    uint32_t tx_goes_on         # 1: a turn that goes on, with what is left of it
    uint32_t signal_cursor      # context that is signalled first
    mac_entry_t *mac_table      # contexts that receive, by their own addresses and VLANs
    mac_entry_t *own_table      # all contexts, by the same: none of their addresses is learned there
    uint32_t mac_mask
    uint32_t n_learned          # entries of `learned` in use
    learned_t *learned
    uint32_t learn_shift        # 64 less the binary logarithm of the number of sets
    uint64_t learn_secret       # odd: in which set an address is found is not for a guest to choose
    uint64_t learn_age          # cycles after which an address that was silent is forgotten
    uint64_t learn_hold         # cycles of silence after which it may be learned elsewhere
    uint64_t now                # cycle count at the beginning of the round
    # Time: see account.pxd.
    uint64_t mark               # cycle count up to which time was charged
    context_t *payer            # whose turn it is; NULL: the wire's
    uint32_t timed              # 1: turns are worth time; 0: bytes, in a NIC that is stepped
    uint32_t by_bytes           # a mask for the same: 0, or all bits
    int32_t due                 # bytes, and FRAME_BYTES a frame, until time is charged
    uint32_t over               # 1: this slice of the round begins no other frame
    uint64_t slice              # cycle count at its beginning
    uint64_t quantum            # cycles of a turn at weight 1
    uint64_t slice_limit        # cycles
    uint64_t suspect            # cycles of a charge that may hide time of other threads
    double cycles_per_ns
    uint64_t stolen             # cycles that the kernel gave to others, as far as it was noticed
    uint64_t own_ns             # the thread's own clock when it was last looked at, and the mark then
    uint64_t own_mark
    uint64_t *debtors           # contexts with a deficit below 0
    uint64_t round_weight       # of the contexts that were charged in this round
    uint64_t round_charged      # cycles, to all of them
    uint64_t round_end          # cycle count when the last round, or standstill, ended
    uint64_t wire_cycles        # spent for frames from the wire
    uint64_t other_cycles       # doorbells, link, accounts
    uint64_t worst_round        # cycles
    uint64_t worst_standstill   # cycles between two rounds, in which Python changed what the engine reads
    wire_t *wire
    irq_ring_t *irq
    uint64_t irq_looked         # cycle count when held-back completions were last looked at
    uint64_t irq_raised         # physical interrupts
    uint8_t *packet_buffer
    uint32_t packet_used        # bytes
    frame_t txq[BURST]          # frames in the packet buffer, on their way to the wire
    uint32_t txq_head
    uint32_t txq_tail
    uint8_t *segment_buffer     # a frame of several descriptors, or one to be segmented: MAX_TSO_FRAME bytes
    void *tso                   # segmentation_t of the segmentation under way
    context_t *tso_context      # whose it is, or NULL
    uint8_t *tso_frame          # the next segment
    flood_t flood
    frame_t rxq[BURST]          # frames of the wire that wait for their turn, from rx_at to rx_n
    uint32_t rx_at
    uint32_t rx_n
    uint8_t *rx_frame           # a segment of a large frame from the wire: MAX_FRAME bytes
    uint32_t tso_ready          # its length; 0: not made yet
    fragment_ids_t fragment_ids     # of the IPv6 fragments that this NIC makes
    uint64_t rx_drop_filter     # frames from the wire for no context
    uint64_t rx_drop_invalid    # frames from the wire of an impossible length, tag or offload
    signaller_t *signaller      # of slow signals, or NULL before the first virtio device
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
    uint32_t link               # of the wire, as the context pages show it
