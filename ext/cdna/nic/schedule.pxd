"""The scheduler: whose turn it is to send, and for how long.

Contexts take turns by deficit round robin (Shreedhar and Varghese, SIGCOMM 1995): a turn is worth `weight`
quanta. Where the engine runs, a quantum is time, so that no frame is cheap for who sends it and dear for who
waits; in a NIC that is stepped it is bytes, which no clock changes. Who took more than its turn pays it off
before the next. A rate limit is a token bucket that skips turns.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cdna.abi cimport CONTEXT_FREE
from cdna.cpu cimport lowest_bit, unlikely
from cdna.nic.account cimport begin_slice, charge, charge_payer, give, pay, quantum
from cdna.nic.bits cimport clear_bit, test_bit
from cdna.nic.context cimport RINGS_VIRTIO, context_t
from cdna.nic.native.tx cimport native_turn
from cdna.nic.offload.perform cimport segment
from cdna.nic.rate cimport has_tokens, refill_tokens
from cdna.nic.state cimport nic_t
from cdna.nic.switch cimport go_on_flooding
from cdna.nic.virtio.tx cimport virtio_turn
from cdna.nic.wire_queue cimport flush_wire

cdef enum:
    TURN_FRAMES = 128           # of a turn that is worth time, at weight 1: cheap frames leave others a part
    FLUSH_FRAMES = 8            # for the wire, that a turn hands over at its end: its sender pays for that


cdef inline bint is_alone(const nic_t *nic, const context_t *context) noexcept nogil:
    """Whether no other context has something that it may send."""
    cdef const context_t *other
    cdef uint32_t word
    cdef uint64_t bits
    for word in range(nic.words):
        bits = nic.tx_active[word]
        while bits:
            other = &nic.context[word * 64 + lowest_bit(bits)]
            bits &= bits - 1
            if other != context and has_tokens(other):
                return False
    return True


cdef inline int turn(nic_t *nic, context_t *context, int budget, bint goes_on, bint *stuck) noexcept nogil:
    """Gives a context its turn on its rings. Returns frames sent. `stuck`: the wire has no room.

    goes_on: the turn is of a round before, and has what is left of it. Where turns are worth time, one that
    ended for the number of its frames leaves the rest to the next, and who is alone has turns until the slice
    is over: the frames of one round are joined at their receiver.
    """
    cdef int n = 0
    cdef int64_t worth = quantum(nic, context)
    nic.payer = context
    if context.deficit <= 0 or (nic.timed and not goes_on and context.deficit <= worth):
        context.time.turn = nic.rounds
        give(context, worth)
    while context.deficit > 0:
        if context.rings == RINGS_VIRTIO:
            n += virtio_turn(nic, context, budget - n, stuck)
        else:
            n += native_turn(nic, context, budget - n, stuck)
        if nic.txq_tail - nic.txq_head >= FLUSH_FRAMES:
            flush_wire(nic)
        charge(nic, context, &context.time.tx)
        if not nic.timed or nic.over or context.deficit > 0 or n == budget or \
                not test_bit(nic.tx_active, context.index) or not is_alone(nic, context):
            break
        give(context, worth)
    return n


cdef inline void pay_for_idle(nic_t *nic, uint64_t idle) noexcept nogil:
    """The beginning of a round: time between two rounds, asleep for example, was wanted by nobody."""
    cdef uint32_t word
    cdef uint64_t bits
    cdef context_t *context
    for word in range(nic.words):
        bits = nic.debtors[word]
        while bits:
            context = &nic.context[word * 64 + lowest_bit(bits)]
            bits &= bits - 1
            pay(nic, context, <int64_t>idle)


cdef inline uint64_t waiting_weight(const nic_t *nic) noexcept nogil:
    """Weights of the contexts that have something that they may send, and got no time in this round."""
    cdef uint64_t bits, weight = 0
    cdef uint32_t word
    cdef const context_t *context
    for word in range(nic.words):
        bits = nic.tx_active[word]
        while bits:
            context = &nic.context[word * 64 + lowest_bit(bits)]
            bits &= bits - 1
            if context.time.round != nic.rounds and has_tokens(context):
                weight += context.weight
    return weight


cdef inline void pay_off(nic_t *nic, uint64_t passed) noexcept nogil:
    """The end of a round: contexts in debt that do not wait for a turn get their share of it.

    The share is by weight, of what contexts were charged, among those that were or wait: who was alone pays
    nothing back. Where nobody was charged, it is all that has passed. A turn was worth a quantum: who had one
    gets no more, except one that was alone.
    """
    cdef uint32_t word
    cdef uint64_t bits, weight, shared = nic.round_charged if nic.round_weight else passed
    cdef int64_t worth, waiting = -1
    cdef context_t *context
    for word in range(nic.words):
        bits = nic.debtors[word]
        while bits:
            context = &nic.context[word * 64 + lowest_bit(bits)]
            bits &= bits - 1
            if context.state == CONTEXT_FREE:
                clear_bit(nic.debtors, context.index)
                continue
            if context.time.turn != nic.rounds and test_bit(nic.tx_active, context.index):
                continue
            if waiting < 0:
                waiting = <int64_t>waiting_weight(nic)
            weight = nic.round_weight + <uint64_t>waiting
            if context.time.round != nic.rounds or weight == 0:     # 0: of the first round of all
                weight += context.weight
            worth = <int64_t>(shared * context.weight // weight)
            if context.time.turn == nic.rounds:
                if weight != context.weight:
                    continue
                worth -= quantum(nic, context)
            if worth > 0:
                pay(nic, context, worth)
    nic.round_weight = nic.round_charged = 0


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
    cdef bint wrapped = False, goes_on = nic.tx_goes_on, stuck
    cdef int n = 0, left, sent
    cdef int64_t most
    cdef context_t *context
    if goes_on and nic.timed and nic.context[at].deficit <= 0:      # its interrupts have cost it the rest
        at = nic.tx_cursor = at + 1 if at + 1 < nic.contexts else 0
        goes_on = False
    nic.tx_goes_on = 0
    begin_slice(nic)
    flush_wire(nic)
    if unlikely(nic.flood.left):
        go_on_flooding(nic)
    if unlikely(nic.tso_context != NULL):
        nic.payer = nic.tso_context
        segment(nic, nic.tso_context)
        charge_payer(nic)
    while n < budget and not nic.over:
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
        goes_on = goes_on and at == nic.tx_cursor
        # Its next frame waits for the segments of this one, or until all have this one.
        if unlikely(context == nic.tso_context) or (nic.flood.left and context == nic.flood.sender):
            at += 1
            continue
        if context.rate_limited:
            refill_tokens(context, now)
            if not has_tokens(context):
                at += 1
                continue
        stuck = False
        left = budget - n
        most = <int64_t>TURN_FRAMES * context.weight if nic.timed else budget
        if left > most:
            left = <int>most
        sent = turn(nic, context, left, goes_on, &stuck)
        goes_on = False
        n += sent
        if stuck and first_stuck == nic.contexts:
            first_stuck = at            # the others still reach each other; this one is first next time
        if (n < budget and not nic.over) or (nic.timed and sent == most) or context.deficit <= 0:
            at += 1
        else:
            nic.tx_goes_on = 1          # in the next round
    if first_stuck != nic.contexts:
        at = first_stuck
        nic.tx_goes_on = 0
    nic.tx_cursor = at if at < nic.contexts else 0
    flush_wire(nic)
    return n
