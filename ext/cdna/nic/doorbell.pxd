"""Doorbells: two levels of bit vectors, from a guest's mailbox to the NIC (section 4.1 of the paper).

The second level is the `doorbell` word of a context page, a bit a mailbox, which only its guest (and the
NIC) can write. The first level, a bit a context, is NIC memory. A guest in this address space sets its
bit there when it writes the mailbox, as the snooping hardware of RiceNIC does. A guest in another process
maps its page alone; the NIC sweeps the pages of such guests, a few in each round, and sets the first
level itself: no guest can make the NIC look at another's context.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.abi cimport (
    CONTEXT_RUNNING, FAULT_PRODUCER, MAILBOX_INTERRUPT_ENABLE, MAILBOX_RX_PRODUCER, MAILBOX_TX_PRODUCER,
    RING_RX, RING_TX,
)
from cdna.checks cimport CHECK_PRODUCER_AHEAD, CHECK_PRODUCER_BACK, broken, cdna_step
from cdna.cpu cimport load_u32, load_u64, lowest_bit, or_u64, swap_u32, swap_u64
from cdna.nic.bits cimport clear_bit, set_bit
from cdna.nic.context cimport context_t, ring_t
from cdna.nic.native.ring cimport posted
from cdna.nic.serving cimport stop_context
from cdna.nic.state cimport nic_t
from cdna.nic.virtio.notify cimport look_at_rings

cdef enum:
    SWEEP = 32                  # pages of other processes after which a round looks at no further word


cdef inline void accept_producer(nic_t *nic, context_t *context, ring_t *ring, uint32_t index,
                                 uint32_t producer) noexcept nogil:
    """Takes a producer index from a mailbox: it may grow, up to a ring ahead of the consumer."""
    cdef uint32_t ahead = producer - ring.consumer
    if broken(CHECK_PRODUCER_AHEAD, ahead > ring.size) or broken(CHECK_PRODUCER_BACK, ahead < posted(ring)):
        stop_context(nic, context, FAULT_PRODUCER, index, producer, ring.consumer + ring.size, producer)
        return
    cdna_step()
    ring.producer = producer


cdef inline void take_doorbell(nic_t *nic, context_t *context) noexcept nogil:
    """Reads the mailboxes of one context that were written."""
    cdef uint32_t written = swap_u32(&context.page.doorbell, 0)
    if context.state != CONTEXT_RUNNING:
        return
    context.stats.doorbells += 1
    if written & <uint32_t>1 << MAILBOX_INTERRUPT_ENABLE:
        if load_u32(&context.page.mailbox[<int>MAILBOX_INTERRUPT_ENABLE]):
            set_bit(nic.enabled, context.index)
        else:
            clear_bit(nic.enabled, context.index)
    if written & <uint32_t>1 << MAILBOX_RX_PRODUCER:
        accept_producer(nic, context, &context.rx, RING_RX,
                        load_u32(&context.page.mailbox[<int>MAILBOX_RX_PRODUCER]))
    if written & <uint32_t>1 << MAILBOX_TX_PRODUCER and context.state == CONTEXT_RUNNING:
        accept_producer(nic, context, &context.tx, RING_TX,
                        load_u32(&context.page.mailbox[<int>MAILBOX_TX_PRODUCER]))
        if context.state == CONTEXT_RUNNING and posted(&context.tx):
            set_bit(nic.tx_active, context.index)


cdef inline void sweep_polled(nic_t *nic) noexcept nogil:
    """Looks at the pages of guests in other processes, the next few in each round."""
    cdef uint32_t looked = 0, word = nic.poll_cursor, _words
    cdef uint64_t bits
    cdef uint32_t index
    for _words in range(nic.words):
        if word >= nic.words:
            word = 0
        bits = nic.polled[word]
        while bits:
            index = word * 64 + lowest_bit(bits)
            bits &= bits - 1
            looked += 1
            if load_u32(&nic.context[index].page.doorbell):
                or_u64(&nic.doorbell[word], <uint64_t>1 << (index & 63))
        word += 1
        if looked >= SWEEP:
            break
    nic.poll_cursor = word


cdef inline void doorbells(nic_t *nic) noexcept nogil:
    """Finds the contexts with a doorbell, then their mailboxes."""
    cdef uint32_t word
    cdef uint64_t bits
    if nic.n_polled:
        sweep_polled(nic)
    look_at_rings(nic)
    for word in range(nic.words):
        if load_u64(&nic.doorbell[word]) == 0:
            continue
        bits = swap_u64(&nic.doorbell[word], 0)
        while bits:
            take_doorbell(nic, &nic.context[word * 64 + lowest_bit(bits)])
            bits &= bits - 1
