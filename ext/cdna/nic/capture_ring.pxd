"""Copies of frames for a capture: a ring of records between the engine and whoever writes the file.

The ring is a memory file, so that the reader may be another process. What the engine relies on is in its own
`capture_ring_t`; in the file are a head that both sides write and the records behind it. The engine decides
by nothing there but the consumer index, and a reader that lies about it damages only what it reads itself.

    0          64         128    136     192                    36864                36864 + size
    +----------+----------+------+-------+----------------------+--------+-- ... --+--------+
    | producer | consumer | lost | ended | lost_of, by context  | record |         | record |
    +----------+----------+------+-------+----------------------+--------+-- ... --+--------+

Indices are in bytes and run freely. A record never wraps: one of direction CAPTURE_PAD fills the end.

    0      4         6           7        8     12       16             24
    +------+---------+-----------+--------+-----+--------+--------------+-- ... ---------------+
    | size | context | direction | reason | len | caplen | timestamp_ns | caplen bytes, padded |
    +------+---------+-----------+--------+-----+--------+--------------+-- ... ---------------+

`size` counts the whole record, a multiple of 8; `len` is the frame's length, of which `caplen` bytes were
kept. A frame that does not fit is not kept, and counted in `lost`: the traffic never waits for a capture.

A record of direction CAPTURE_INTERFACE says whose the frames of a context are from here on. The control side
writes it while the engine stands still, and CAPTURE_RESERVE bytes are kept free of frames for such records:

    24        32    40
    +---------+-----+-- ... --------------------+
    | lost_of | mac | name, UTF-8               |      lost_of: frames of this context lost before
    +---------+-----+-- ... --------------------+
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cdna.cpu cimport cycles, load_u64, prefetch_write, realtime_ns, store_u64
from cdna.nic.frame cimport gather, piece_t
from cdna.nic.outcome cimport (
    RX_DROP_LINK, RX_DROP_MTU, RX_DROP_NO_BUFFER, RX_DROP_NO_DRIVER, RX_DROP_STOPPED, TX_DROP_FILTER,
    TX_DROP_LINK, TX_DROP_MTU, TX_DROP_SPOOF, TX_DROP_STORM, TX_DROP_VLAN,
)

cdef enum:
    CAPTURE_HEAD = 36864        # bytes before the records: capture_page_t in whole pages
    CAPTURE_HEADER = 24         # bytes of record_t
    CAPTURE_RESERVE = 16384     # bytes
    CAPTURE_CONTEXTS = 4096     # MAX_CONTEXTS of cdna.abi
    AHEAD = 512                 # bytes behind the last record, which are fetched
    CLOCK_ERROR_NS = 10000      # more than the cycle counter is wrong between two looks at the clock

cpdef enum CaptureDirection:
    CAPTURE_OUT = 0             # sent by the context
    CAPTURE_IN = 1              # received by the context
    CAPTURE_INTERFACE = 254     # no frame: what a context is called from here on
    CAPTURE_PAD = 255           # no frame: the records go on at the beginning

cpdef enum CaptureReason:       # why a frame was dropped; the names are those of the counters
    CAPTURE_NOT_DROPPED = 0
    CAPTURE_TX_DROP_SPOOF = 1
    CAPTURE_TX_DROP_VLAN = 2
    CAPTURE_TX_DROP_LINK = 3
    CAPTURE_TX_DROP_FILTER = 4
    CAPTURE_RX_DROP_NO_BUFFER = 5
    CAPTURE_RX_DROP_STOPPED = 6
    CAPTURE_TX_DROP_MTU = 7
    CAPTURE_RX_DROP_MTU = 8
    CAPTURE_RX_DROP_LINK = 9
    CAPTURE_RX_DROP_NO_DRIVER = 10
    CAPTURE_TX_DROP_STORM = 11

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

cdef packed struct record_t:
    uint32_t size
    uint16_t context
    uint8_t direction
    uint8_t reason
    uint32_t len
    uint32_t caplen
    uint64_t timestamp_ns       # since 1970

cdef packed struct interface_t:     # behind the header of a CAPTURE_INTERFACE record, before the name
    uint64_t lost_of
    uint64_t mac                # as in context_t


cdef inline uint64_t capture_stamp(capture_ring_t *ring) noexcept nogil:
    """Now, never before the last stamp unless somebody has set the clock back."""
    cdef uint64_t now = cycles(), ns
    if now - ring.clock_at > ring.clock_cycles:
        ring.clock_at = now
        ring.clock_ns = realtime_ns()
    ns = ring.clock_ns + <uint64_t>(<double>(now - ring.clock_at) * ring.ns_per_cycle)
    if ns < ring.last_ns and ring.last_ns - ns < CLOCK_ERROR_NS:
        ns = ring.last_ns
    ring.last_ns = ns
    return ns


cdef inline bint capture_pad(capture_ring_t *ring, uint64_t needed, uint64_t room) noexcept nogil:
    """Fills the end of the ring where a record of `needed` bytes would wrap. False: there is no room then."""
    cdef uint64_t end = ring.size - (ring.producer & (ring.size - 1))
    cdef record_t *record
    if needed <= end:
        return needed <= room
    if end + needed > room:
        return False
    record = <record_t *>(ring.records + (ring.producer & (ring.size - 1)))
    record.size = <uint32_t>end         # at least 8 bytes, of which a reader needs `size` and `direction`
    record.direction = CAPTURE_PAD
    ring.producer += end
    return True


cdef inline void capture_one(capture_ring_t *ring, uint32_t context, uint32_t direction, uint32_t reason,
                             const piece_t *piece, uint32_t len) noexcept nogil:
    cdef uint32_t kept = len if len < ring.snaplen else ring.snaplen
    cdef uint64_t needed = (CAPTURE_HEADER + <uint64_t>kept + 7) & ~<uint64_t>7
    cdef uint64_t used = ring.producer - load_u64(&ring.page.consumer), room = ring.size - CAPTURE_RESERVE
    cdef record_t *record
    if used > room or not capture_pad(ring, needed, room - used):
        ring.page.lost += 1
        ring.page.lost_of[context] += 1
        return
    record = <record_t *>(ring.records + (ring.producer & (ring.size - 1)))
    record.size = <uint32_t>needed
    record.context = context
    record.direction = direction
    record.reason = reason
    record.len = len
    record.caplen = kept
    record.timestamp_ns = capture_stamp(ring)
    gather(<uint8_t *>record + CAPTURE_HEADER, piece, 0, kept)
    ring.producer += needed
    store_u64(&ring.page.producer, ring.producer)
    # The ring is larger than the caches: what comes next is fetched while the NIC does something else.
    prefetch_write(ring.records + ((ring.producer + AHEAD) & (ring.size - 1)))
    prefetch_write(ring.records + ((ring.producer + AHEAD + 64) & (ring.size - 1)))


cdef inline uint32_t capture_reason(int outcome) noexcept nogil:
    """The CaptureReason of what became of a frame (`outcome.pxd`)."""
    if outcome == TX_DROP_SPOOF:
        return CAPTURE_TX_DROP_SPOOF
    if outcome == TX_DROP_VLAN:
        return CAPTURE_TX_DROP_VLAN
    if outcome == TX_DROP_LINK:
        return CAPTURE_TX_DROP_LINK
    if outcome == TX_DROP_FILTER:
        return CAPTURE_TX_DROP_FILTER
    if outcome == TX_DROP_MTU:
        return CAPTURE_TX_DROP_MTU
    if outcome == TX_DROP_STORM:
        return CAPTURE_TX_DROP_STORM
    if outcome == RX_DROP_NO_BUFFER:
        return CAPTURE_RX_DROP_NO_BUFFER
    if outcome == RX_DROP_NO_DRIVER:
        return CAPTURE_RX_DROP_NO_DRIVER
    if outcome == RX_DROP_LINK:
        return CAPTURE_RX_DROP_LINK
    if outcome == RX_DROP_MTU:
        return CAPTURE_RX_DROP_MTU
    if outcome == RX_DROP_STOPPED:
        return CAPTURE_RX_DROP_STOPPED
    return CAPTURE_NOT_DROPPED


cdef inline void capture_all(capture_ring_t *ring, uint32_t context, uint32_t direction, uint32_t reason,
                             const piece_t *piece, uint32_t len) noexcept nogil:
    """Copies a frame to every capture from `ring` on that wants it."""
    while ring != NULL:
        if ring.wanted[context >> 6] >> (context & 63) & 1:
            capture_one(ring, context, direction, reason, piece, len)
        ring = ring.next


cdef inline void capture(capture_ring_t *ring, uint32_t context, uint32_t direction, int outcome,
                         const piece_t *piece, uint32_t len) noexcept nogil:
    """Shows a frame to the captures, with what became of it. The caller has checked that there is one."""
    capture_all(ring, context, direction, capture_reason(outcome), piece, len)
