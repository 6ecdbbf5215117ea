"""The scheduler: whose turn it is to send, and for how long.

Contexts take turns by deficit round robin (Shreedhar and Varghese, SIGCOMM 1995): a turn is worth `weight`
quanta. Where the engine runs, a quantum is time, so that no frame is cheap for who sends it and dear for who
waits; in a NIC that is stepped it is bytes, which no clock changes. Who took more than its turn pays it off
before the next. A rate limit is a token bucket that skips turns.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cdna.abi cimport CONTEXT_FREE
from cdna.cpu cimport lowest_bit, unlikely
from cdna.nic.account cimport begin_slice, charge, charge_payer, pay, quantum
from cdna.nic.bits cimport clear_bit, test_bit
from cdna.nic.context cimport RINGS_VIRTIO, context_t
from cdna.nic.native.tx cimport native_turn
from cdna.nic.offload.perform cimport segment
from cdna.nic.rate cimport refill_tokens
from cdna.nic.state cimport nic_t
from cdna.nic.switch cimport go_on_flooding
from cdna.nic.virtio.tx cimport virtio_turn
from cdna.nic.wire_queue cimport flush_wire

cdef enum:
    TURN_FRAMES = 128           # of a turn that is worth time, at weight 1: cheap frames leave others a part
    FLUSH_FRAMES = 8            # for the wire, that a turn hands over at its end: its sender pays for that


cdef inline int turn(nic_t *nic, context_t *context, int budget, bint *stuck) noexcept nogil:
    """Gives a context its turn on its rings. Returns frames sent. `stuck`: the wire has no room."""
    cdef int n
    cdef int64_t worth
    if context.deficit <= 0:
        context.time.turn = nic.rounds
        worth = quantum(nic, context)
        context.deficit += worth
        context.owed = context.owed - <uint64_t>worth if context.owed > <uint64_t>worth else 0
        if context.deficit <= 0:
            return 0
    nic.payer = context
    if context.rings == RINGS_VIRTIO:
        n = virtio_turn(nic, context, budget, stuck)
    else:
        n = native_turn(nic, context, budget, stuck)
    if nic.txq_tail - nic.txq_head >= FLUSH_FRAMES:
        flush_wire(nic)
    charge(nic, context, &context.time.tx)
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


cdef inline void pay_off(nic_t *nic, uint64_t passed) noexcept nogil:
    """The end of a round: contexts in debt that do not wait for a turn get their share of it.

    The share is by weight, of what contexts were charged, among those: who was alone pays nothing back. Where
    nobody was charged, it is all that has passed. Who had a turn has a part of it already.
    """
    cdef uint32_t word
    cdef uint64_t bits, weight, shared = nic.round_charged if nic.round_weight else passed
    cdef int64_t worth
    cdef context_t *context
    for word in range(nic.words):
        bits = nic.debtors[word]
        while bits:
            context = &nic.context[word * 64 + lowest_bit(bits)]
            bits &= bits - 1
            if context.state == CONTEXT_FREE:
                clear_bit(nic.debtors, context.index)
                continue
            weight = nic.round_weight
            if context.time.round != nic.rounds or weight == 0:     # 0: of the first round of all
                weight += context.weight
            worth = <int64_t>(shared * context.weight // weight)
            if context.time.turn == nic.rounds:
                worth -= quantum(nic, context)
            elif test_bit(nic.tx_active, context.index):
                continue
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
    cdef bint wrapped = False, stuck
    cdef int n = 0, left, sent
    cdef int64_t most
    cdef context_t *context
    if nic.tx_goes_on and nic.context[at].deficit <= 0:     # its interrupts have cost it the rest
        at = nic.tx_cursor = at + 1 if at + 1 < nic.contexts else 0
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
        # Its next frame waits for the segments of this one, or until all have this one.
        if unlikely(context == nic.tso_context) or (nic.flood.left and context == nic.flood.sender):
            at += 1
            continue
        if context.rate_limited:
            refill_tokens(context, now)
        stuck = False
        left = budget - n
        most = <int64_t>TURN_FRAMES * context.weight if nic.timed else budget
        if left > most:
            left = <int>most
        sent = turn(nic, context, left, &stuck)
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
