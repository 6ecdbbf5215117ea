"""The circular buffer of interrupt bit vectors, from the NIC to the VMM (section 3.2).

The buffer lies in VMM memory, `slots` vectors of `words` 64-bit words:

              consumer (VMM)     producer (NIC)
                  |                  |
     +--------+--------+--------+--------+--------+
     | vector | vector | vector |  free  |  free  |     one physical interrupt a vector
     +--------+--------+--------+--------+--------+

Invariants, each with the tests that hold it:

    I1  a vector is not overwritten before it was read: while the buffer is full, updates gather in `updated`
        test_a_vector_is_never_overwritten_before_it_is_read
    I2  a bit leaves `updated` when it is written to a vector, and not before: no update is lost
        test_what_was_masked_is_reported_when_the_guest_asks
    I3  who arms the event descriptor and then finds the buffer empty is written to by the next vector
        test_a_guest_sleeps_until_a_frame_arrives
    I4  a context that was stopped is reported, whatever its guest masked; one that was revoked is not
        test_a_fault_interrupts_the_vmm_whatever_the_guest_masked,
        test_a_context_that_was_revoked_is_reported_to_nobody
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef struct irq_ring_t:
    uint64_t *vector            # slots * words
    uint32_t slots              # a power of two
    uint32_t words              # 64-bit words in one vector
    uint32_t producer           # written by the NIC
    uint8_t _pad0[44]
    uint32_t consumer           # written by the VMM
    uint32_t armed              # 1: the VMM sleeps on the event descriptor
    int event_fd                # or -1
    uint8_t _pad1[52]
