"""The scheduler: whose turn it is to send, and for how long.

Contexts take turns by deficit round robin (Shreedhar and Varghese, SIGCOMM 1995): a turn is worth
`weight` quanta of bytes. A rate limit is a token bucket that skips turns.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.cpu cimport lowest_bit
from cdna.nic.context cimport RINGS_VIRTIO, context_t
from cdna.nic.native.tx cimport native_turn
from cdna.nic.offload.perform cimport segment
from cdna.nic.state cimport nic_t
from cdna.nic.virtio.tx cimport virtio_turn
from cdna.nic.wire_queue cimport flush_wire

cdef enum:
    QUANTUM = 16384             # bytes of one turn at weight 1


cdef inline void refill_tokens(context_t *context, uint64_t now) noexcept nogil:
    context.tokens += (now - context.tokens_at) * context.tokens_per_cycle
    if context.tokens > context.tokens_max:
        context.tokens = context.tokens_max
    context.tokens_at = now


cdef inline int turn(nic_t *nic, context_t *context, int budget, bint *stuck) noexcept nogil:
    """Gives a context its turn on its rings. Returns frames sent. `stuck`: the wire has no room."""
    if context.deficit <= 0:
        context.deficit += <int>QUANTUM * <int>context.weight
    if context.rings == RINGS_VIRTIO:
        return virtio_turn(nic, context, budget, stuck)
    return native_turn(nic, context, budget, stuck)


cdef inline uint32_t next_active(const nic_t *nic, uint32_t start) noexcept nogil:
    """The first context from `start` on that has something to send; nic.contexts where there is none."""
    cdef uint32_t word = start >> 6
    cdef uint64_t bits
    if word >= nic.words:
        return nic.contexts
    bits = nic.tx_active[word] >> (start & 63) << (start & 63)
    while bits == 0:
        word += 1
        if word == nic.words:
            return nic.contexts
        bits = nic.tx_active[word]
    return word * 64 + lowest_bit(bits)


cdef inline int transmit(nic_t *nic, int budget, uint64_t now) noexcept nogil:
    """Gives turns to the contexts that have something to send. Returns frames sent."""
    cdef uint32_t at = nic.tx_cursor, first_stuck = nic.contexts
    cdef bint wrapped = False, stuck
    cdef int n = 0
    cdef context_t *context
    flush_wire(nic)
    if nic.tso_context != NULL:
        segment(nic, nic.tso_context)
    while n < budget:
        at = next_active(nic, at)
        if at == nic.contexts:
            if wrapped:
                break
            wrapped = True
            at = 0
            continue
        if wrapped and at >= nic.tx_cursor:
            break
        context = &nic.context[at]
        if context == nic.tso_context:  # its next frame waits for the segments of this one
            at += 1
            continue
        if context.rate_limited:
            refill_tokens(context, now)
        stuck = False
        n += turn(nic, context, budget - n, &stuck)
        if stuck and first_stuck == nic.contexts:
            first_stuck = at            # the others still reach each other; this one is first next time
        if n < budget or context.deficit <= 0:  # its turn is over; otherwise it goes on in the next round
            at += 1
    if first_stuck != nic.contexts:
        at = first_stuck
    nic.tx_cursor = at if at < nic.contexts else 0
    flush_wire(nic)
    return n
