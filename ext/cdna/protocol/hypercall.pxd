"""The hypercalls of a guest in another process: one message each on its socket, and one reply.

The socket is SOCK_SEQPACKET, so a message arrives whole or not at all; the kernel copies it into the VMM's
own buffer, and a guest cannot change what is being checked. A connection is one guest and one context: no
message names either. All fields are words of the host:

     0      2      4       8          16
    +------+------+-------+----------+----------------------------------------------
    | op   | ring | n     | reserved | entries
    +------+------+-------+----------+----------------------------------------------
      HYPERCALL_ENQUEUE                n descriptors of 16 bytes (cdna.abi); n = 0 only drops pins
      HYPERCALL_MAP                    n I/O page numbers, then n machine page numbers, 4 bytes each
      HYPERCALL_UNMAP                  n I/O page numbers
      HYPERCALL_REAP                   n = 0: drops the pins of what was completed
      HYPERCALL_STATUS                 n = 0: answered by JSON text, not by a `hypercall_reply_t`

`ring` is 0 but for HYPERCALL_ENQUEUE, `reserved` is 0, n is at most HYPERCALL_BATCH.
"""

from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t

from cdna.abi cimport desc_t

cdef enum:
    HYPERCALL_BATCH = 256

cpdef enum Hypercall:
    HYPERCALL_ENQUEUE = 1
    HYPERCALL_MAP = 2
    HYPERCALL_UNMAP = 3
    HYPERCALL_REAP = 4
    HYPERCALL_STATUS = 5

cdef struct hypercall_t:
    uint16_t op                 # Hypercall
    uint16_t ring               # Ring
    uint32_t n
    uint64_t reserved

cdef struct hypercall_reply_t:
    int32_t status              # entries taken, or a Refusal
    uint32_t index              # of a refusal: entry in the message
    uint32_t page               # page to blame, or 0
    uint32_t reserved

cdef struct hypercall_message_t:
    hypercall_t head
    desc_t entry[256]           # HYPERCALL_BATCH; page numbers lie in the same bytes
