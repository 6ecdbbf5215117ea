"""Descriptor rings as the NIC reads them: one read a descriptor, the sequence check, and the stop.

A ring lies where the VMM (mode validated) or the guest (iommu, none) writes it, perhaps while the NIC
reads: a descriptor is read once, into two words, and judged by that copy.

              consumer                      producer
                 |                             |
    +--------+---+----+--------+--------+------+-+--------+
    |  used  | posted | posted | posted |  free  |  free  |   indices run freely; a slot is index & (size - 1)
    +--------+--------+--------+--------+--------+--------+

Invariants, each with the check that holds it, and with the model's (models/checks.pml) where it has one:

    R1  consumer <= producer <= consumer + size, and neither ever goes back
        CHECK_PRODUCER_AHEAD, CHECK_PRODUCER_BACK; PRODUCER
    R2  a validated descriptor carries the number that follows the last one's, so each is used once
        CHECK_SEQUENCE; SEQUENCE, READ_ORDER
    R3  a buffer is read or written only where it lies in machine memory, or where the I/O table maps it
        CHECK_DMA_START, CHECK_DMA_END; CHECK_IO_RANGE, CHECK_IO_PRESENT; TRANSLATE_RANGE, TRANSLATE_PRESENT
    R4  a context that does not run has no descriptor read, whatever its doorbell says
        STATE
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.abi cimport (
    FAULT_FLAGS, FAULT_LENGTH, FAULT_NONE, FAULT_SEQUENCE, PAGE_SHIFT, PROTECTION_VALIDATED, desc_t,
)
from cdna.checks cimport CHECK_SEQUENCE, broken
from cdna.cpu cimport load_u64, read_once_u64
from cdna.nic.context cimport context_t, ring_t
from cdna.nic.serving cimport stop_context
from cdna.nic.state cimport nic_t


cdef inline void read_desc(const ring_t *ring, uint32_t index, desc_t *copy) noexcept nogil:
    """The word with the number first, which the VMM writes last (`write_desc` in `vmm/protection.pyx`).

    A guest may announce what it has not handed over yet. Read the other way round, the address could be that
    of the slot's last descriptor, whose page may be somebody else's by now, and the number that of the next.
    """
    cdef const uint64_t *words = <const uint64_t *>&ring.desc[index & (ring.size - 1)]
    (<uint64_t *>copy)[1] = load_u64(&words[1])
    (<uint64_t *>copy)[0] = read_once_u64(&words[0])


cdef inline uint32_t posted(const ring_t *ring) noexcept nogil:
    """Descriptors that the NIC may use."""
    return ring.producer - ring.consumer


cdef inline uint32_t sequence_of(const ring_t *ring, uint32_t offset) noexcept nogil:
    """Number that the descriptor `offset` behind the consumer must carry."""
    return (ring.seq + offset) & ring.seq_mask


cdef inline bint in_sequence(const context_t *context, const ring_t *ring, uint32_t offset,
                             const desc_t *desc) noexcept nogil:
    return context.protection != PROTECTION_VALIDATED or \
        not broken(CHECK_SEQUENCE, desc.seq != sequence_of(ring, offset))


cdef inline void consume(ring_t *ring, uint32_t n) noexcept nogil:
    ring.consumer += n
    ring.seq = (ring.seq + n) & ring.seq_mask


cdef inline uint32_t found_in(const desc_t *desc, uint32_t fault) noexcept nogil:
    """What a fault report shows of a descriptor: the field that is to blame, an address by its page."""
    if fault == FAULT_SEQUENCE:
        return desc.seq
    if fault == FAULT_LENGTH:
        return desc.len
    if fault == FAULT_FLAGS:
        return desc.flags
    return <uint32_t>(desc.addr >> PAGE_SHIFT)


cdef inline void stop_at(nic_t *nic, context_t *context, uint32_t fault, uint32_t ring_index, uint32_t offset,
                         uint32_t found) noexcept nogil:
    """Stops a context at the descriptor `offset` behind the consumer of a ring."""
    cdef ring_t *ring = &context.tx if ring_index == 0 else &context.rx
    cdef uint32_t expected = sequence_of(ring, offset) if fault == FAULT_SEQUENCE else FAULT_NONE
    stop_context(nic, context, fault, ring_index, ring.consumer + offset, expected, found)
