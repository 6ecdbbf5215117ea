"""The guest's half of a doorbell (section 4.1 of the paper); the NIC's half is nic/doorbell.pxd.

A mailbox is a word of the context page (`cdna.abi`). A guest in the NIC's address space sets its context's
bit in the first-level vector as well, as the snooping hardware of RiceNIC does; one in another process has
the page alone.
"""

from libc.stdint cimport uint32_t, uint64_t

from cdna.abi cimport context_page_t
from cdna.cpu cimport load_u64, or_u32, or_u64, store_u32


cdef inline void ring_doorbell(context_page_t *page, uint32_t mailbox, uint32_t value,
                               uint64_t *first_level, uint32_t context) noexcept nogil:
    """Writes a mailbox and tells the NIC; `first_level` is NULL for a guest of another process."""
    cdef uint64_t bit = <uint64_t>1 << (context & 63)
    store_u32(&page.mailbox[mailbox], value)
    or_u32(&page.doorbell, <uint32_t>1 << mailbox)      # orders the mailbox before the test below
    if first_level != NULL and not load_u64(&first_level[context >> 6]) & bit:
        or_u64(&first_level[context >> 6], bit)
