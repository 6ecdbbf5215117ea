"""What the compiled targets share: an input taken apart, and memory put back between two inputs.

A target is a C function from bytes to a line of text: NULL, or what is wrong. It makes no object and no
allocation that lasts, so that it runs some ten thousand times a second.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport abort, malloc
from libc.string cimport memcpy, memset

from cdna.nic.context cimport context_t, progress_t
from cdna.nic.irq_ring cimport irq_ring_t
from cdna.nic.mac_table cimport mac_entry_t
from cdna.nic.state cimport nic_t

cdef extern from "<stdio.h>" nogil:
    int fprintf(void *stream, const char *format, ...)
    void *stderr

cdef enum:
    PARTS = 64                  # of memory that one image keeps

ctypedef const char *(*target_fn)(const uint8_t *data, size_t size) noexcept nogil

cdef struct input_t:
    const uint8_t *at
    size_t left

cdef struct part_t:
    uint8_t *at
    uint8_t *copy
    size_t size

cdef struct image_t:            # memory as it was when it was kept
    part_t part[64]
    uint32_t parts


# --- input: numbers little-endian, zero where it has ended ------------------------------------------------

cdef inline uint64_t number(input_t *input, uint32_t size) noexcept nogil:
    cdef uint64_t word = 0
    cdef size_t n = size if size < input.left else input.left
    memcpy(&word, input.at, n)
    input.at += n
    input.left -= n
    return word


cdef inline uint8_t u8(input_t *input) noexcept nogil:
    return <uint8_t>number(input, 1)


cdef inline uint16_t u16(input_t *input) noexcept nogil:
    return <uint16_t>number(input, 2)


cdef inline uint32_t u32(input_t *input) noexcept nogil:
    return <uint32_t>number(input, 4)


cdef inline uint64_t u64(input_t *input) noexcept nogil:
    return number(input, 8)


cdef inline size_t fill_from(input_t *input, uint8_t *to, size_t size) noexcept nogil:
    """So many bytes, or those that are left. Returns how many."""
    cdef size_t n = size if size < input.left else input.left
    memcpy(to, input.at, n)
    input.at += n
    input.left -= n
    return n


# --- memory -----------------------------------------------------------------------------------------------

cdef inline void keep(image_t *image, void *at, size_t size) noexcept nogil:
    cdef part_t *part = &image.part[image.parts]
    if image.parts == PARTS:
        abort()
    part.at = <uint8_t *>at
    part.size = size
    part.copy = <uint8_t *>malloc(size)
    memcpy(part.copy, at, size)
    image.parts += 1


cdef inline void put_back(const image_t *image) noexcept nogil:
    cdef uint32_t i
    for i in range(image.parts):
        memcpy(image.part[i].at, image.part[i].copy, image.part[i].size)


cdef inline void keep_nic(image_t *image, nic_t *nic) noexcept nogil:
    """All that an engine changes but for what lies in its packet buffers."""
    cdef uint64_t **vectors = [
        nic.doorbell, nic.tx_active, nic.polled, nic.dirty, nic.unreported, nic.updated, nic.enabled,
        nic.running, nic.virtio, nic.virtio_used,
    ]
    cdef int i
    keep(image, nic, sizeof(nic_t))
    keep(image, nic.context, nic.contexts * sizeof(context_t))
    keep(image, nic.progress, nic.contexts * sizeof(progress_t))
    for i in range(10):
        keep(image, vectors[i], nic.words * 8)
    keep(image, nic.mac_table, (nic.mac_mask + 1) * sizeof(mac_entry_t))
    keep(image, nic.irq, sizeof(irq_ring_t))
    keep(image, nic.irq.vector, nic.irq.slots * nic.irq.words * 8)


cdef inline int judged(const char *trouble) noexcept nogil:
    """For libFuzzer, which takes an abort for a finding."""
    if trouble != NULL:
        fprintf(stderr, b"%s\n", trouble)
        abort()
    return 0
