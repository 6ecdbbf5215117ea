"""Whose time it is: each cycle of the NIC's core is charged to a context, to the wire, or to nobody.

`nic.mark` is where the accounts have got to. A charge gives what has passed since then to somebody, and moves
the mark. So whoever does something for another first charges what went before:

                 a sender's turn            a receiver's slow ring         the turn goes on
    mark  |----------------------------|------------------------------|--------------------->
                      charge(sender's tx) ^       charge(receiver's rx) ^

A time stamp costs a quarter of a small frame, so the fast way of a frame takes none. It is taken at the end
of a turn, after some bytes and frames (`nic.due`), and around what may be slow. A sender pays for what its
frames cause at receivers, a receiver for what its own rings cost beyond a buffer of one piece.

Time that the kernel gave to other threads is nobody's: a charge that is long enough to hide such is compared
with the thread's own clock.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from cdna.cpu cimport cycles, load_u32, thread_ns, unlikely
from cdna.nic.bits cimport clear_bit, set_bit
from cdna.nic.context cimport account_t, context_t
from cdna.nic.state cimport nic_t

cdef enum:
    QUANTUM_BYTES = 16384       # of one turn at weight 1, where turns are worth bytes
    QUANTUM_NS = 4000           # the same, where they are worth time
    SLICE_NS = 12000            # of transmission, and of reception, in a round: no frame begins after that
    DUE_BYTES = 16384           # of frames between two time stamps, at most, and for each of them
    FRAME_BYTES = 1024          # 15 small ones: each may be a page fault of some microseconds
    SUSPECT_NS = 30000          # a charge so long may hide time of other threads


cdef inline uint64_t of_this_thread(nic_t *nic, uint64_t spent) noexcept nogil:
    """What of a long charge the thread had; the rest the kernel gave to others since the last look."""
    cdef uint64_t own = thread_ns(), passed = nic.mark - nic.own_mark, stolen
    cdef uint64_t had = <uint64_t>(<double>(own - nic.own_ns) * nic.cycles_per_ns)
    nic.own_ns = own
    nic.own_mark = nic.mark
    stolen = passed - had if had < passed else 0
    if stolen > spent:
        stolen = spent
    nic.stolen += stolen
    nic.slice += stolen
    return spent - stolen


cdef inline uint64_t since_mark(nic_t *nic) noexcept nogil:
    """Cycles since the mark, which moves to now."""
    cdef uint64_t now = cycles(), spent = now - nic.mark
    nic.mark = now
    nic.due = DUE_BYTES
    if unlikely(spent > nic.suspect):
        spent = of_this_thread(nic, spent)
    if unlikely(nic.timed and now - nic.slice >= nic.slice_limit):
        nic.over = 1
    return spent


cdef inline void begin_slice(nic_t *nic) noexcept nogil:
    """Transmission or reception begins, with time of its own."""
    nic.slice = nic.mark
    nic.over = 0


cdef inline uint64_t charge(nic_t *nic, context_t *context, uint64_t *account) noexcept nogil:
    """Charges the time since the mark to a context; `account`: what for. Returns the cycles."""
    cdef uint64_t spent = since_mark(nic)
    account[0] += spent
    if context.time.round != nic.rounds:
        context.time.round = nic.rounds
        context.time.in_round = 0
        nic.round_weight += context.weight
    context.time.in_round += spent
    nic.round_charged += spent
    if context.time.in_round > context.time.worst:
        context.time.worst = context.time.in_round
    if nic.timed:
        context.deficit -= <int64_t>spent
        if account != &context.time.tx:
            context.owed += spent
        if context.deficit < 0:
            set_bit(nic.debtors, context.index)
    return spent


cdef inline void give(context_t *context, int64_t worth) noexcept nogil:
    """Gives a context time; what it owes for its own rings is at most its debt. worth: not below 0."""
    context.deficit += worth
    if context.deficit >= 0:
        context.owed = 0
    elif context.owed > <uint64_t>-context.deficit:
        context.owed = <uint64_t>-context.deficit


cdef inline void pay(nic_t *nic, context_t *context, int64_t worth) noexcept nogil:
    """Gives time to a context in debt that had no turn; it keeps none for later. worth: not below 0."""
    give(context, worth)
    if context.deficit >= 0:
        context.deficit = 0
        clear_bit(nic.debtors, context.index)


cdef inline uint64_t note_time(nic_t *nic, uint64_t *account) noexcept nogil:
    """Adds the time since the mark to an account, and takes it from no turn. Returns the cycles."""
    cdef uint64_t spent = since_mark(nic)
    account[0] += spent
    return spent


cdef inline void note_standstill(nic_t *nic, int64_t index, uint64_t spent) noexcept nogil:
    """Notes a time in which the engine stood still, and still does. Below 0: nobody's.

    It is taken from no turn: guests have a tenth of the time for what they ask (cdna/base/control_time.py).
    """
    nic.round_end = cycles()
    if spent > nic.worst_standstill:
        nic.worst_standstill = spent
    if index < 0 or not load_u32(&nic.alive):
        return
    nic.context[index].time.control += spent


cdef inline void charge_payer(nic_t *nic) noexcept nogil:
    """Charges the time since the mark to the sender whose turn it is, or to the wire."""
    if nic.payer != NULL:
        charge(nic, nic.payer, &nic.payer.time.tx)
    else:
        nic.wire_cycles += since_mark(nic)


cdef inline int64_t quantum(const nic_t *nic, const context_t *context) noexcept nogil:
    """What a turn of a context is worth: cycles, or bytes."""
    return (<int64_t>nic.quantum if nic.timed else QUANTUM_BYTES) * <int64_t>context.weight


cdef inline bint in_debt(const nic_t *nic, const context_t *context) noexcept nogil:
    """Whether a receiver's rings have cost so much that it gets nothing for now."""
    return nic.timed and context.owed > nic.suspect


cdef inline void look_at_clocks(nic_t *nic) noexcept nogil:
    """Accounts go on from now: the thread begins, or has slept, which is no time that others took from it."""
    nic.mark = nic.own_mark = cycles()
    nic.own_ns = thread_ns()


cdef inline void begin_time(nic_t *nic) noexcept nogil:
    """Turns are worth time from now on: called in the thread that runs the engine."""
    nic.timed = 1
    nic.by_bytes = 0
    look_at_clocks(nic)
    nic.round_weight = nic.round_charged = 0
    nic.round_end = cycles()


cdef inline void count_bytes(nic_t *nic) noexcept nogil:
    """Turns are worth bytes from now on, and nobody has a debt."""
    cdef uint32_t i
    nic.timed = 0
    nic.by_bytes = 0xFFFFFFFF
    for i in range(nic.contexts):
        nic.context[i].deficit = 0
        nic.context[i].owed = 0
    for i in range(nic.words):
        nic.debtors[i] = 0
