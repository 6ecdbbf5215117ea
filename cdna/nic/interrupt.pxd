"""Interrupts: the contexts that the NIC updated, as bit vectors in a circular buffer (section 3.2).

The buffer lies in VMM memory, `slots` vectors of `words` 64-bit words:

              consumer (VMM)     producer (NIC)
                  |                  |
     +--------+--------+--------+--------+--------+
     | vector | vector | vector |  free  |  free  |     one physical interrupt a vector
     +--------+--------+--------+--------+--------+

A vector is never overwritten before it was read: while the buffer is full, updates gather in `updated`.
Moderation: an interrupt is raised after `irq_max_frames` frames or `irq_max_cycles` cycles, whichever
comes first, counted from the first unreported update.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.cpu cimport fence, load_u32, lowest_bit, store_u32
from cdna.nic.context cimport context_t, irq_ring_t, nic_t

cdef extern from "<unistd.h>" nogil:
    ssize_t write(int fd, const void *buf, size_t count)


cdef inline void publish(nic_t *nic) noexcept nogil:
    """Writes the consumer indices that this round moved into the context pages."""
    cdef uint32_t word
    cdef uint64_t bits
    cdef context_t *context
    for word in range(nic.words):
        bits = nic.dirty[word]
        if bits == 0:
            continue
        nic.updated[word] |= bits
        nic.dirty[word] = 0
        while bits:
            context = &nic.context[word * 64 + lowest_bit(bits)]
            bits &= bits - 1
            store_u32(&context.page.tx_consumer, context.tx.consumer)
            store_u32(&context.page.rx_consumer, context.rx.consumer)


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
    nic.irq_since = 0
    nic.irq_frames = 0
    fence()                             # the producer before `armed`: the VMM arms, then looks again
    if load_u32(&irq.armed):
        store_u32(&irq.armed, 0)
        write(irq.event_fd, &one, 8)


cdef inline void interrupts(nic_t *nic, int frames, uint64_t now) noexcept nogil:
    """The end of a round: publishes, and raises an interrupt when moderation lets it."""
    publish(nic)
    nic.irq_frames += frames
    if not wants_interrupt(nic):
        nic.irq_frames = 0
        return
    if nic.irq_since == 0:
        nic.irq_since = now
    if nic.irq_frames >= nic.irq_max_frames or now - nic.irq_since >= nic.irq_max_cycles:
        raise_interrupt(nic)
