"""A synthetic guest: offers or takes stamped frames through the native driver as fast as it goes.

It stands for a guest's network stack and application, of which it does what cannot be left out: it writes
the header, the stamp and the last word of each frame that it sends, and reads and checks them of each
frame that it receives (every byte, when the load verifies).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.abi cimport COMPLETION_F_EOP, DESC_F_EOP, RING_TX, completion_t
from cdna.cpu cimport prefetch_read, store_u64
from cdna.guest_driver.queues cimport (
    announce, buffer_at, buffer_maddr, driver_t, give_free, post, rx_ready, rx_refill, rx_take, take_free,
    tx_reclaim,
)
from cdna.memory cimport SharedRegion
from cdna.nic.traffic cimport FRAME_LENGTH, FRAME_OK, frame_check, frame_write, load_length, load_t

cdef enum:
    BATCH = 64                  # frames between two looks at the rings
    AHEAD = 8                   # received frames that are prefetched

cdef struct synthetic_t:
    driver_t *driver
    const load_t *load
    uint32_t flow
    uint32_t bad_error          # FrameError of the first bad frame
    uint64_t dst_mac
    uint64_t src_mac
    uint64_t sent               # frames; also the next sequence number
    uint64_t bad                # frames that were not what the flow should have brought
    uint64_t bad_seq            # expected number of the first bad frame
    uint64_t bytes_received
    uint8_t _pad[56]
    uint64_t received           # frames; the generator reads it as the acknowledgement


cdef inline uint32_t offer(synthetic_t *guest, uint32_t most) noexcept nogil:
    """Posts up to `most` frames and announces them. Returns how many; 0: the ring is full."""
    cdef driver_t *d = guest.driver
    cdef uint32_t n = tx_reclaim(d), buffer, length
    if n > most:
        n = most
    if n > d.tx.n_free:
        n = d.tx.n_free
    for _ in range(n):
        buffer = take_free(&d.tx)
        length = frame_write(buffer_at(d, d.tx_pool, buffer), guest.load, guest.flow, guest.sent,
                             guest.dst_mac, guest.src_mac)
        post(d, &d.tx, RING_TX, buffer_maddr(d, d.tx_pool, buffer), length, DESC_F_EOP, buffer)
        guest.sent += 1
    if n:
        announce(d, &d.tx, RING_TX)
    return n


cdef inline void check(synthetic_t *guest, const uint8_t *frame, uint32_t length) noexcept nogil:
    cdef int error = frame_check(frame, length, guest.load, guest.flow, guest.received)
    if error != FRAME_OK:
        if guest.bad == 0:
            guest.bad_error = error
            guest.bad_seq = guest.received
        guest.bad += 1


cdef inline uint32_t ahead_slot(const driver_t *d) noexcept nogil:
    return (d.rx.consumer + AHEAD) & (d.rx.size - 1)


cdef inline uint32_t take(synthetic_t *guest, uint32_t most) noexcept nogil:
    """Takes up to `most` received frames, checks each, and posts their buffers again. Returns how many."""
    cdef driver_t *d = guest.driver
    cdef uint32_t n = rx_ready(d), buffer, i, ahead
    cdef completion_t completion
    if n > most:
        n = most
    for i in range(n):
        if i + AHEAD < n:           # the stamp and the tail: the NIC's core wrote them last
            ahead = d.rx.slot[ahead_slot(d)]
            prefetch_read(buffer_at(d, d.rx_pool, ahead))
            prefetch_read(buffer_at(d, d.rx_pool, ahead) + d.completion[ahead_slot(d)].len - 1)
        buffer = rx_take(d, &completion)
        check(guest, buffer_at(d, d.rx_pool, buffer), completion.len)
        guest.bytes_received += completion.len
        store_u64(&guest.received, guest.received + 1)
        give_free(&d.rx, buffer)
    if n:
        rx_refill(d)
    return n


cdef class SyntheticGuest:
    cdef synthetic_t *c
    cdef SharedRegion _region
    cdef readonly object driver
    cdef readonly object load
