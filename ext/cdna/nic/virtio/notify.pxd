"""Notifications between a virtio guest and the NIC: looking for available buffers, interrupts, and sleep.

While the engine runs it looks at the rings itself and the driver need not kick. Before it sleeps it asks for
kicks, and looks once more: what was made available before the driver saw that is not missed (virtio 1.2,
2.7.10.1). Interrupts are moderated as those of any context, by buffers and by time, but the first one after
a pause comes at once.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.abi cimport CONTEXT_FAULTED, CONTEXT_RUNNING, FAULT_MEMORY_GONE
from cdna.cpu cimport load_u32, lowest_bit, unlikely
from cdna.eventfd cimport signal_eventfd
from cdna.nic.account cimport begin_slice, charge
from cdna.nic.bits cimport clear_bit, set_bit
from cdna.nic.context cimport context_t
from cdna.nic.serving cimport stop_context
from cdna.nic.state cimport nic_t
from cdna.nic.virtio.queue cimport (
    ask_for_kicks, calls, has_available, prefetch_available, publish_used, virtio_t, virtqueue_t,
)
from cdna.nic.virtio.slow_signals cimport ERRORS, hand_over, has_slow_signals, judge_signals, rests


cdef inline void stop_guest(nic_t *nic, context_t *context, const virtqueue_t *q, uint32_t ring,
                            uint32_t fault, uint32_t found) noexcept nogil:
    """Stops a context by the next buffer of a queue. Where its memory has gone, that was why."""
    if load_u32(&context.virtio.memory.gone):
        fault = FAULT_MEMORY_GONE
    stop_context(nic, context, fault, ring, q.last_avail, 0, found)


cdef inline void tell_fault(nic_t *nic, const context_t *context) noexcept nogil:
    """Has the error descriptors of a guest signalled whose context was stopped: any may be slow."""
    cdef virtio_t *v = context.virtio
    cdef uint32_t i
    v.told = 1
    for i in range(2 * v.pairs):
        if v.queue[i].err_fd >= 0:
            hand_over(nic.signaller, context.index, ERRORS + i, v.queue[i].err_fd)


cdef inline bint tx_available(virtio_t *v) noexcept nogil:
    """Whether some transmit queue has something."""
    cdef uint32_t i
    if not v.link:
        return False
    for i in range(v.sending):
        if has_available(&v.queue[v.transmitq[i]]):
            prefetch_available(&v.queue[v.transmitq[i]])
            return True
    return False


cdef inline void look_at(nic_t *nic, context_t *context) noexcept nogil:
    """Whether a virtio guest has something to send, and its memory still is there."""
    if load_u32(&context.virtio.memory.gone) and context.state == CONTEXT_RUNNING:
        stop_context(nic, context, FAULT_MEMORY_GONE, 0, 0, 0, 0)
    if context.state == CONTEXT_FAULTED:
        if not context.virtio.told:
            tell_fault(nic, context)
    elif tx_available(context.virtio):
        set_bit(nic.tx_active, context.index)


cdef inline void look_at_rings(nic_t *nic) noexcept nogil:
    """Finds the virtio guests that have something to send, beside those that are known to."""
    cdef uint32_t word
    cdef uint64_t bits
    for word in range(nic.words):
        bits = nic.virtio[word] & ~nic.tx_active[word]
        while bits:
            look_at(nic, &nic.context[word * 64 + lowest_bit(bits)])
            bits &= bits - 1


cdef inline void signal(nic_t *nic, context_t *context, uint32_t queue) noexcept nogil:
    """Sends a used buffer notification, or has the second thread send it."""
    cdef int fd = context.virtio.queue[queue].call_fd
    context.stats.interrupts += 1
    if unlikely(has_slow_signals(nic.signaller, context.index, nic.now)):
        hand_over(nic.signaller, context.index, queue, fd)
    else:
        signal_eventfd(fd)


cdef inline bint signal_queue(nic_t *nic, context_t *context, uint32_t queue, uint64_t now) noexcept nogil:
    """Publishes what a queue has used, and interrupts. Returns whether moderation holds an interrupt back."""
    cdef virtqueue_t *q = &context.virtio.queue[queue]
    publish_used(context.virtio.memory, q)
    if q.unsignalled == 0:
        return False
    if q.unsignalled < context.coalesce_frames and now - q.signalled_at < context.coalesce_cycles:
        return True
    if unlikely(rests(nic.signaller, context.index, now)):
        return True
    if calls(q, now):
        signal(nic, context, queue)
    return False


cdef inline bint signal_used(nic_t *nic, context_t *context, uint64_t now) noexcept nogil:
    """As `signal_queue`, of all queues."""
    cdef virtio_t *v = context.virtio
    cdef uint32_t i
    cdef bint held = False
    for i in range(v.receiving):
        held |= signal_queue(nic, context, v.receiveq[i], now)
    for i in range(v.sending):
        held |= signal_queue(nic, context, v.transmitq[i], now)
    return held


cdef inline void virtio_interrupts(nic_t *nic, uint64_t now) noexcept nogil:
    """The end of a round for the virtio guests that got something back in it, or before.

    Those for whom this round has no time left are the first in the next.
    """
    cdef uint32_t word = nic.signal_cursor >> 6, _
    cdef uint64_t bits, before = (<uint64_t>1 << (nic.signal_cursor & 63)) - 1
    cdef uint64_t sent, spent
    cdef context_t *context
    cdef context_t *payer
    begin_slice(nic)
    bits = nic.virtio_used[word] & ~before
    for _ in range(nic.words + 1):      # the first word's beginning at last
        while bits:
            context = &nic.context[word * 64 + lowest_bit(bits)]
            if unlikely(nic.over):
                nic.signal_cursor = context.index
                return
            bits &= bits - 1
            payer = context.signal_payer
            sent = context.stats.interrupts
            if not signal_used(nic, context, now):
                clear_bit(nic.virtio_used, context.index)
                context.signal_payer = NULL
            sent = context.stats.interrupts - sent
            if payer != NULL and payer.state == CONTEXT_RUNNING:
                spent = charge(nic, payer, &payer.time.tx)
            else:
                spent = charge(nic, context, &context.time.signal)
            judge_signals(nic.signaller, context.index, nic.mark, spent, sent)
        word = word + 1 if word + 1 < nic.words else 0
        bits = nic.virtio_used[word]
        if word == nic.signal_cursor >> 6:
            bits &= before
    nic.signal_cursor = 0


cdef inline bint ask_all_for_kicks(nic_t *nic, bint wanted) noexcept nogil:
    """Before a sleep, and after it. Returns whether some guest has something to send already."""
    cdef uint32_t word, i
    cdef uint64_t bits
    cdef context_t *context
    cdef virtqueue_t *q
    cdef bint available = False
    for word in range(nic.words):
        bits = nic.virtio[word]
        while bits:
            context = &nic.context[word * 64 + lowest_bit(bits)]
            bits &= bits - 1
            for i in range(context.virtio.sending):
                q = &context.virtio.queue[context.virtio.transmitq[i]]
                if q.notify != wanted:
                    ask_for_kicks(q, wanted)
            available |= wanted and context.state == CONTEXT_RUNNING and tx_available(context.virtio)
    return available
