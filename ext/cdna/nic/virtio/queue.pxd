"""The device side of a virtqueue, split or packed (virtio 1.2, 2.7 and 2.8): what is available, what is used.

This device uses buffers in the order in which they were made available, so all that it knows of a ring is
where it stands: a split ring's `used.idx`, a packed ring's index and wrap counter. A device that died takes
up the work from there, whatever it had begun. As a packed ring says nowhere where that is, and some frontends
do not remember, it is noted in the `off_wrap` of the device's own event area, which drivers only read beside
the flag DESC (2.8.10), which this device never sets; bit 14 says that it was.

Used entries are written as they come and shown to the driver together by `publish`: in a split ring by its
index, in a packed ring by the flags of the first of them, which are written last.

      published            written, not yet shown     available
    ---------------------+--------------------------+------------------+
                         | pending                  |                  |
    ---------------------+--------------------------+------------------+
                        first                   last_avail

Invariants, each with the check that holds it, or the tests that do:

    Q1  at most `size` buffers are available beyond last_avail
        CHECK_AVAILABLE
    Q2  a chain begins at a descriptor of the ring's table
        CHECK_HEAD
    Q3  a ring that is `ready` lies in the guest's memory; its parts move while the engine stands still
        CHECK_RING_LOCATED, CHECK_RING_ALIGNED
    Q4  buffers are used in the order in which they were taken, so a position is all that a restart needs
        test_a_position_that_a_dying_server_did_not_note, test_positions_in_the_inflight_area
    Q5  size, position and format of a started ring stay
        CHECK_RING_STARTED, CHECK_FORMAT_STARTED; test_a_started_ring_keeps_size_position_and_format
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cdna.checks cimport CHECK_AVAILABLE, CHECK_HEAD, broken, cdna_step
from cdna.cpu cimport fence, load_u16, prefetch_read, read_once_u64, store_u16, store_u64, unlikely
from cdna.nic.virtio.memory cimport guest_memory_t, log_bytes, log_range
from cdna.virtio cimport (
    VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_WRITE, VRING_PACKED_DESC_F_AVAIL, VRING_PACKED_DESC_F_USED,
    VRING_PACKED_EVENT_FLAG_DESC, VRING_PACKED_EVENT_FLAG_DISABLE, VRING_PACKED_EVENT_FLAG_ENABLE,
    VRING_USED_F_NO_NOTIFY, vring_avail_t, vring_desc_t, vring_packed_desc_t, vring_packed_event_t,
    vring_used_elem_t, vring_used_t,
)

cdef enum:
    BEYOND_RING = -1            # more made available than the ring holds
    POSITION_NOTED = 0x4000     # of `off_wrap`

cdef packed struct inflight_split_t:    # vhost-user, "Inflight I/O tracking": the head of a queue's area
    uint64_t features
    uint16_t version
    uint16_t desc_num
    uint16_t last_batch_head
    uint16_t used_idx

cdef packed struct inflight_packed_t:
    uint64_t features
    uint16_t version
    uint16_t desc_num
    uint16_t free_head
    uint16_t old_free_head
    uint16_t used_idx
    uint16_t old_used_idx
    uint8_t used_wrap_counter
    uint8_t old_used_wrap_counter
    uint8_t padding[7]

cdef struct virtqueue_t:
    uint8_t *desc               # vring_desc_t[size] or vring_packed_desc_t[size]
    uint8_t *driver             # vring_avail_t or vring_packed_event_t
    uint8_t *device             # vring_used_t or vring_packed_event_t
    uint16_t size               # a power of two in a split ring
    uint16_t last_avail         # the next one to take: free-running (split), or an index (packed)
    uint16_t seen_avail         # split: avail.idx as it was last read
    uint16_t used               # the next one to write: free-running (split), or an index (packed)
    uint16_t first              # packed: the index of the first that is written and not shown
    uint16_t first_flags        # packed: what is written there when it is shown
    uint16_t first_id
    uint32_t first_len
    uint16_t signalled          # `used` when the driver was last told, or might have been
    uint8_t avail_wrap
    uint8_t used_wrap
    uint8_t packed
    uint8_t ready               # started, enabled, and inside the guest's memory: the engine may serve it
    uint8_t event_idx
    uint8_t indirect
    uint8_t logs                # 1: writes to the used ring go into the dirty log
    uint8_t notify              # 1: the driver shall kick
    uint32_t pending            # used entries written and not shown
    uint32_t unsignalled        # used entries shown since the driver was last told
    uint64_t signalled_at       # cycles
    uint32_t hint               # region of the last look-up
    int call_fd
    int kick_fd
    int err_fd
    uint64_t log_addr           # guest address of the used ring
    inflight_split_t *inflight  # or inflight_packed_t, or NULL
    uint64_t frames
    uint64_t calls
    # As the frontend gave them; 0: not yet.
    uint64_t desc_user
    uint64_t driver_user
    uint64_t device_user
    uint8_t started
    uint8_t enabled

cdef struct rss_t:              # receive-side scaling as the driver configured it (5.1.6.5.7)
    uint32_t types              # HashType; 0: the NIC distributes as it likes
    uint32_t mask               # entries of the table, less one
    uint16_t unclassified       # receive queue of frames without a hash
    uint16_t queue[128]         # receive queues, 0 to pairs - 1
    void *key                   # toeplitz_t

cdef struct virtio_t:           # the rings and the memory of one context's guest
    virtqueue_t queue[16]       # 2i: receiveq, 2i + 1: transmitq (5.1.2); VIRTIO_MAX_PAIRS of each
    uint32_t pairs
    uint32_t receiving          # receive queues that are ready
    uint32_t sending            # transmit queues that are
    uint8_t receiveq[8]         # which: indices of `queue`
    uint8_t transmitq[8]
    uint32_t tx_cursor          # in `transmitq`
    uint32_t active             # pairs that the driver receives on
    rss_t rss
    uint32_t header             # bytes of the virtio-net header: 12, or 10 of a legacy driver
    uint8_t mergeable
    uint8_t checksums           # 1: the driver took GUEST_CSUM
    uint8_t link                # 0: nothing goes in or out
    uint8_t told                # 1: the frontend knows of the fault
    uint64_t features
    guest_memory_t *memory


cdef inline vring_desc_t *split_table(const virtqueue_t *q) noexcept nogil:
    return <vring_desc_t *>q.desc


cdef inline vring_packed_desc_t *packed_table(const virtqueue_t *q) noexcept nogil:
    return <vring_packed_desc_t *>q.desc


cdef inline vring_avail_t *avail_ring(const virtqueue_t *q) noexcept nogil:
    return <vring_avail_t *>q.driver


cdef inline vring_used_t *used_ring(const virtqueue_t *q) noexcept nogil:
    return <vring_used_t *>q.device


# --- what is available ------------------------------------------------------------------------------------

cdef inline bint is_available(uint16_t flags, bint wrap) noexcept nogil:
    """Whether a packed descriptor of this lap was made available (2.8.1)."""
    return (flags & VRING_PACKED_DESC_F_AVAIL != 0) == wrap and \
        (flags & VRING_PACKED_DESC_F_USED != 0) != wrap


cdef inline bint packed_available(const virtqueue_t *q, uint32_t index, bint wrap) noexcept nogil:
    return is_available(load_u16(&packed_table(q)[index].flags), wrap)


cdef inline int split_available(virtqueue_t *q) noexcept nogil:
    """Buffers that the driver has made available, or BEYOND_RING."""
    cdef uint16_t n = q.seen_avail - q.last_avail
    if n == 0:
        q.seen_avail = load_u16(&avail_ring(q).idx)
        n = q.seen_avail - q.last_avail
    if broken(CHECK_AVAILABLE, n > q.size):
        return BEYOND_RING
    return n


cdef inline bint has_available(virtqueue_t *q) noexcept nogil:
    """Whether there may be something to take; also true of an index that is beyond the ring."""
    if q.packed:
        return packed_available(q, q.last_avail, q.avail_wrap)
    return load_u16(&avail_ring(q).idx) != q.last_avail


cdef inline void prefetch_available(const virtqueue_t *q) noexcept nogil:
    """Fetches what says which buffers are available; of a packed ring that is what was just looked at."""
    if not q.packed:
        prefetch_read(&avail_ring(q).ring[q.last_avail & (q.size - 1)])


cdef inline uint16_t split_head(const virtqueue_t *q, uint32_t offset) noexcept nogil:
    """The descriptor that the available buffer `offset` behind the next one begins with; any number."""
    return load_u16(&avail_ring(q).ring[(q.last_avail + offset) & (q.size - 1)])


cdef inline bint in_table(const virtqueue_t *q, uint32_t head) noexcept nogil:
    """Whether a chain of a split ring begins where there is a descriptor."""
    return not broken(CHECK_HEAD, head >= q.size)


cdef inline void read_words(const uint8_t *table, uint32_t index, vring_desc_t *copy) noexcept nogil:
    """A descriptor of 16 bytes, split or packed, each word read once."""
    cdef const uint64_t *words = <const uint64_t *>(table + 16 * <uint64_t>index)
    (<uint64_t *>copy)[0] = read_once_u64(&words[0])
    (<uint64_t *>copy)[1] = read_once_u64(&words[1])


cdef inline void take(virtqueue_t *q, uint32_t slots) noexcept nogil:
    """The next buffer, of so many slots (packed), is the device's now."""
    cdef uint32_t at = q.last_avail + slots
    cdna_step()
    if not q.packed:
        q.last_avail += 1
    else:
        if at >= q.size:
            at -= q.size
            q.avail_wrap ^= 1
        q.last_avail = <uint16_t>at


# --- what is used -----------------------------------------------------------------------------------------

cdef inline void use_split(virtqueue_t *q, uint16_t id, uint32_t len) noexcept nogil:
    cdef vring_used_elem_t *entry = &used_ring(q).ring[q.used & (q.size - 1)]
    entry.id = id
    cdna_step()
    entry.len = len
    cdna_step()
    q.used += 1
    q.pending += 1


cdef inline void write_used(vring_packed_desc_t *entry, uint16_t id, uint32_t len,
                            uint16_t flags) noexcept nogil:
    """One word: a device that dies leaves a descriptor as it was, or a used one, and no mixture."""
    store_u64(<uint64_t *>&entry.len, len | <uint64_t>id << 32 | <uint64_t>flags << 48)


cdef inline void use_packed(virtqueue_t *q, uint16_t id, uint32_t len, uint32_t slots) noexcept nogil:
    cdef vring_packed_desc_t *entry = &packed_table(q)[q.used]
    cdef uint16_t flags = VRING_PACKED_DESC_F_AVAIL | VRING_PACKED_DESC_F_USED if q.used_wrap else 0
    cdef uint32_t at = q.used + slots
    if len:                             # so many bytes were written
        flags |= VRING_DESC_F_WRITE
    if q.pending == 0:
        q.first = q.used
        q.first_flags = flags
        q.first_id = id
        q.first_len = len
    else:
        cdna_step()
        write_used(entry, id, len, flags)
        cdna_step()
    if at >= q.size:
        at -= q.size
        q.used_wrap ^= 1
    q.used = <uint16_t>at
    q.pending += 1


cdef inline void use(virtqueue_t *q, uint16_t id, uint32_t len, uint32_t slots) noexcept nogil:
    """Gives a buffer back with `len` bytes written to it; the driver sees it after `publish`."""
    if q.packed:
        use_packed(q, id, len, slots)
    else:
        use_split(q, id, len)


cdef inline void publish_split(const guest_memory_t *memory, virtqueue_t *q) noexcept nogil:
    cdef uint32_t i
    cdna_step()
    store_u16(&used_ring(q).idx, q.used)
    cdna_step()
    if q.inflight != NULL:
        q.inflight.used_idx = q.used
    if unlikely(memory.log != NULL) and q.logs:
        for i in range(1, q.pending + 1):
            log_range(memory, q.log_addr + 4 + 8 * <uint64_t>((q.used - i) & (q.size - 1)), 8)
        log_range(memory, q.log_addr, 4)


cdef inline void note_position(const virtqueue_t *q) noexcept nogil:
    """Leaves in the guest's memory where a packed ring stands, if its indices have a bit to spare."""
    if q.size <= POSITION_NOTED:
        store_u16(&(<vring_packed_event_t *>q.device).off_wrap,
                  <uint16_t>(q.used | POSITION_NOTED | q.used_wrap << 15))


cdef inline void log_slots(const guest_memory_t *memory, const virtqueue_t *q) noexcept nogil:
    """Marks what was written of a packed ring: from `first` to `used`, which may be a lap away."""
    cdef uint32_t end = q.used if q.used > q.first else q.size
    log_bytes(memory, q.desc + 16 * <uint64_t>q.first, 16 * <uint64_t>(end - q.first))
    if end != q.used:
        log_bytes(memory, q.desc, 16 * <uint64_t>q.used)


cdef inline void publish_packed(const guest_memory_t *memory, virtqueue_t *q) noexcept nogil:
    cdef inflight_packed_t *inflight = <inflight_packed_t *>q.inflight
    cdef vring_packed_desc_t *entry = &packed_table(q)[q.first]
    if inflight != NULL:
        inflight.used_idx = q.used
        inflight.used_wrap_counter = q.used_wrap
    cdna_step()
    write_used(entry, q.first_id, q.first_len, q.first_flags)
    cdna_step()
    note_position(q)
    cdna_step()
    if inflight != NULL:
        inflight.old_used_idx = q.used
        inflight.old_used_wrap_counter = q.used_wrap
    if unlikely(memory.log != NULL):
        log_slots(memory, q)
        log_bytes(memory, q.device, sizeof(vring_packed_event_t))


cdef inline void publish_used(const guest_memory_t *memory, virtqueue_t *q) noexcept nogil:
    """Shows the driver what was used."""
    if q.pending == 0:
        return
    if q.packed:
        publish_packed(memory, q)
    else:
        publish_split(memory, q)
    q.unsignalled += q.pending
    q.frames += q.pending
    q.pending = 0


# --- notifications ----------------------------------------------------------------------------------------

cdef inline bint need_event(uint16_t event, uint16_t now, uint16_t before) noexcept nogil:
    """Whether an index passed `event` on its way from `before` to `now` (2.7.7.1)."""
    return <uint16_t>(now - event - 1) < <uint16_t>(now - before)


cdef inline bint packed_wants_interrupt(const virtqueue_t *q, uint16_t used, uint16_t before) noexcept nogil:
    """By the driver's event suppression area (2.8.10)."""
    cdef const vring_packed_event_t *event = <const vring_packed_event_t *>q.driver
    cdef uint16_t flags = load_u16(&event.flags), off_wrap
    if flags != VRING_PACKED_EVENT_FLAG_DESC or not q.event_idx:
        return flags != VRING_PACKED_EVENT_FLAG_DISABLE
    off_wrap = load_u16(&event.off_wrap)
    # Positions count up over laps here, so one that belongs to the lap before lies behind.
    if off_wrap >> 15 != q.used_wrap:
        off_wrap = (off_wrap & 0x7FFF) - q.size
    else:
        off_wrap &= 0x7FFF
    if before >= used:                  # something was used, so it is another lap
        before -= q.size
    return need_event(off_wrap, used, before)


cdef inline bint wants_call(virtqueue_t *q) noexcept nogil:
    """Whether the driver wants to be told of what was published since it was last."""
    cdef uint16_t before = q.signalled, flags
    fence()                             # what was published before what the driver wants (2.7.7.1, 2.8.10.1)
    q.signalled = q.used
    if q.packed:
        return q.unsignalled >= q.size or packed_wants_interrupt(q, q.used, before)
    if q.event_idx:
        return q.unsignalled >= q.size or \
            need_event(load_u16(&avail_ring(q).ring[q.size]), q.used, before)
    flags = load_u16(&avail_ring(q).flags)
    return not flags & VRING_AVAIL_F_NO_INTERRUPT


cdef inline bint calls(virtqueue_t *q, uint64_t now) noexcept nogil:
    """Whether a used buffer notification is to be sent, which the caller does then."""
    cdef bint wanted = wants_call(q)
    q.unsignalled = 0
    if not wanted:
        return False
    q.signalled_at = now
    cdna_step()
    if q.call_fd < 0:
        return False
    q.calls += 1
    return True


cdef inline void ask_for_kicks(virtqueue_t *q, bint wanted) noexcept nogil:
    """Has the driver notify the device of available buffers, or not. Look at the ring again afterwards."""
    cdef vring_packed_event_t *event = <vring_packed_event_t *>q.device
    cdef vring_used_t *used = used_ring(q)
    q.notify = wanted
    if q.packed:
        store_u16(&event.flags,
                  VRING_PACKED_EVENT_FLAG_ENABLE if wanted else VRING_PACKED_EVENT_FLAG_DISABLE)
    elif not q.event_idx:
        store_u16(&used.flags, 0 if wanted else VRING_USED_F_NO_NOTIFY)
    elif wanted:                        # one that stands still is seldom passed: else nothing to do
        store_u16(<uint16_t *>&used.ring[q.size], q.last_avail)
    if wanted:
        fence()                         # before the look at the ring
