"""Interrupts: the contexts that the NIC updated, as bit vectors in a circular buffer (section 3.2).

The vectors are in irq_ring.pxd. Moderation is per context: a context is reported when `coalesce_frames`
descriptors have completed that were not, or `coalesce_cycles` after the first of them. A vector is raised as
soon as it has a bit.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.abi cimport CONTEXT_FREE, CONTEXT_RUNNING
from cdna.cpu cimport fence, load_u32, lowest_bit, store_u32
from cdna.nic.bits cimport clear_bit, set_bit, test_bit
from cdna.nic.context cimport context_t, progress_t
from cdna.nic.irq_ring cimport irq_ring_t
from cdna.nic.state cimport nic_t
from cdna.nic.virtio.notify cimport virtio_interrupts

cdef extern from "<unistd.h>" nogil:
    ssize_t write(int fd, const void *buf, size_t count)


cdef enum:
    LOOK_CYCLES = 2048          # how often held-back completions are looked at: about a microsecond


cdef inline void report(nic_t *nic, context_t *context) noexcept nogil:
    context.tx_reported = context.tx.consumer
    context.rx_reported = context.rx.consumer
    clear_bit(nic.unreported, context.index)
    set_bit(nic.updated, context.index)


cdef inline void completed(nic_t *nic, context_t *context, uint64_t now) noexcept nogil:
    """Writes the consumer indices for guest and VMM; reports the context when enough has completed."""
    cdef uint32_t n = context.tx.consumer - context.tx_reported + context.rx.consumer - context.rx_reported
    cdef progress_t *progress = &nic.progress[context.index]
    # The VMM first: a guest that sees room and enqueues must find the VMM of the same opinion.
    store_u32(&progress.tx_consumer, context.tx.consumer)
    store_u32(&progress.rx_consumer, context.rx.consumer)
    store_u32(&context.page.tx_consumer, context.tx.consumer)
    store_u32(&context.page.rx_consumer, context.rx.consumer)
    if n >= context.coalesce_frames or context.state != CONTEXT_RUNNING:
        report(nic, context)
    elif not test_bit(nic.unreported, context.index):
        set_bit(nic.unreported, context.index)
        context.unreported_since = now


cdef inline void publish(nic_t *nic, uint64_t now) noexcept nogil:
    """Goes through the contexts that this round completed something for."""
    cdef uint32_t word
    cdef uint64_t bits
    for word in range(nic.words):
        bits = nic.dirty[word]
        if bits == 0:
            continue
        nic.dirty[word] = 0
        while bits:
            completed(nic, &nic.context[word * 64 + lowest_bit(bits)], now)
            bits &= bits - 1


cdef inline void report_late(nic_t *nic, uint64_t now) noexcept nogil:
    """Reports the contexts whose completions have been held back long enough."""
    cdef uint32_t word
    cdef uint64_t bits
    cdef context_t *context
    nic.irq_looked = now
    for word in range(nic.words):
        bits = nic.unreported[word]
        while bits:
            context = &nic.context[word * 64 + lowest_bit(bits)]
            bits &= bits - 1
            if now - context.unreported_since >= context.coalesce_cycles:
                report(nic, context)


cdef inline void publish_link(nic_t *nic) noexcept nogil:
    """Shows every guest whether the wire is up."""
    cdef uint32_t link = load_u32(&nic.wire.link), i
    if link == nic.link:
        return
    nic.link = link
    for i in range(nic.contexts):
        if nic.context[i].state != CONTEXT_FREE:
            store_u32(&nic.context[i].page.link, link)


cdef inline bint wants_interrupt(const nic_t *nic) noexcept nogil:
    cdef uint32_t word
    for word in range(nic.words):
        if nic.updated[word] & nic.enabled[word]:
            return True
    return False


cdef inline void raise_interrupt(nic_t *nic) noexcept nogil:
    """Writes a bit vector and raises the physical interrupt, unless the buffer is full."""
    cdef irq_ring_t *irq = nic.irq
    cdef uint64_t *vector = &irq.vector[(irq.producer & (irq.slots - 1)) * irq.words]
    cdef uint64_t bits, one = 1
    cdef uint32_t word
    if irq.producer - load_u32(&irq.consumer) >= irq.slots:
        return
    for word in range(nic.words):
        bits = nic.updated[word] & nic.enabled[word]
        vector[word] = bits
        nic.updated[word] &= ~bits
        while bits:
            nic.context[word * 64 + lowest_bit(bits)].stats.interrupts += 1
            bits &= bits - 1
    store_u32(&irq.producer, irq.producer + 1)
    nic.irq_raised += 1
    fence()                             # the producer before `armed`: the VMM arms, then looks again
    if load_u32(&irq.armed):
        store_u32(&irq.armed, 0)
        write(irq.event_fd, &one, 8)


cdef inline void interrupts(nic_t *nic, uint64_t now) noexcept nogil:
    """The end of a round: publishes what completed, and raises an interrupt when there is one to raise."""
    publish(nic, now)
    publish_link(nic)
    virtio_interrupts(nic, now)
    if now - nic.irq_looked >= LOOK_CYCLES:
        report_late(nic, now)
    if wants_interrupt(nic):
        raise_interrupt(nic)
