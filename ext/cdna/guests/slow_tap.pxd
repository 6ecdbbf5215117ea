"""A slow port: the second thread of the pump writes its frames, so that no other guest waits for its stack.

The loop's thread keeps the driver, and all hypercalls: it takes completed buffers and hands them over. The
second thread writes them to the tap and hands them back; the loop's thread posts them again.

      handed_back           handed_consumer          handed_producer
    ------+------------------------+-----------------------+---------
          | written: to be posted  | to be written         |
    ------+------------------------+-----------------------+---------

Every buffer that is handed over is one that the receive ring lacks. So a guest that takes its frames slowly
has no receive buffers, as any slow driver: the NIC drops its frames, and nobody waits.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.abi cimport COMPLETION_F_EOP, completion_t
from cdna.cpu cimport load_u32, load_u64, store_u32, store_u64
from cdna.guest_driver.queues cimport driver_t, give_free, rx_ready, rx_refill, rx_take
from cdna.guests.tap_port cimport FRAGMENTS, handed_t, port_t, write_to_tap
from cdna.nic.slow cimport SLOW_FOR, goes_beyond
from cdna.uio cimport iovec

cdef enum:
    SLOW_WRITE_NS = 100_000     # of the thread's own time: a write that costs more is slow
    ALLOWED_NS = 2_000_000      # that writes may take beyond it before the port is: interrupts take time, too


cdef inline uint32_t handed_over(const port_t *port) noexcept nogil:
    """Buffers that were handed over and not taken back, written or not."""
    return port.handed_producer - port.handed_back


cdef inline void judge(port_t *port, uint64_t now, uint64_t spent, uint64_t due, uint64_t allowed,
                       uint64_t served) noexcept nogil:
    """Looks at `spent` cycles of writes that may take `due`: the second thread writes from now on, or not.

    served: that thread's own clock.
    """
    if not goes_beyond(&port.excess, spent, due, allowed):
        return
    port.served = served
    store_u64(&port.slow_until, now + SLOW_FOR * port.excess)
    port.excess = 0
    store_u32(&port.slow, 1)


cdef inline int take_back(port_t *port) noexcept nogil:
    """Posts the buffers again that the second thread has written. Returns how many."""
    cdef uint32_t upto = load_u32(&port.handed_consumer)
    cdef int n = <int>(upto - port.handed_back)
    while port.handed_back != upto:
        give_free(&port.driver.rx, port.handed[port.handed_back & port.handed_mask].buffer)
        port.handed_back += 1
    if n:
        rx_refill(port.driver)
    return n


cdef inline bint turned_fast(port_t *port, uint64_t now) noexcept nogil:
    """Whether the loop's thread writes again: no write was slow for long, and all that it gave is written."""
    if now < load_u64(&port.slow_until) or handed_over(port):
        return False
    store_u32(&port.slow, 0)
    return True


cdef inline int hand_over(port_t *port, uint64_t now) noexcept nogil:
    """Gives whole frames that the NIC has delivered to the second thread. Returns how many.

    None of a port that may soon be fast: those before them are to be written first.
    """
    cdef driver_t *d = port.driver
    cdef uint32_t ready = rx_ready(d), at = port.handed_producer
    cdef handed_t *handed
    cdef completion_t completion
    cdef int n = 0, parts = 0
    if now >= load_u64(&port.slow_until):
        return 0
    while ready:
        ready -= 1
        handed = &port.handed[at & port.handed_mask]
        handed.buffer = rx_take(d, &completion)
        handed.len = completion.len
        parts += 1
        at += 1
        handed.last = completion.flags & COMPLETION_F_EOP != 0 or parts == FRAGMENTS
        if handed.last:
            store_u32(&port.handed_producer, at)
            n += 1
            parts = 0
    return n


# --- in the second thread ---------------------------------------------------------------------------------

cdef inline bint has_frame(const port_t *port) noexcept nogil:
    return load_u32(&port.slow) and load_u32(&port.handed_producer) != port.handed_consumer


cdef inline uint32_t write_next(port_t *port) noexcept nogil:
    """Writes the next frame to its tap. Returns the consumer index behind it, which is to be stored last."""
    cdef iovec part[FRAGMENTS]
    cdef uint32_t at = port.handed_consumer
    cdef handed_t *handed
    cdef int parts = 0
    while True:
        handed = &port.handed[at & port.handed_mask]
        part[parts].iov_base = port.received + <uint64_t>handed.buffer * port.buffer_size
        part[parts].iov_len = handed.len
        parts += 1
        at += 1
        if handed.last:
            break
    write_to_tap(port, part, parts)
    port.to_tap += 1
    port.slow_frames += 1
    return at
