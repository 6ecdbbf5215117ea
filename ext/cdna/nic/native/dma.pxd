"""The DMA engine: from a descriptor's address to bytes, and frames gathered from and scattered to buffers.

In the modes validated and none an address is a machine address; the NIC checks that it lies in machine
memory, as a bus would. In mode iommu it is an I/O address, translated page by page through the context's
own table. The table is written by the VMM alone; an entry is read once.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.abi cimport FAULT_ADDRESS, FAULT_NONE, FAULT_TRANSLATION, PAGE_SHIFT, PAGE_SIZE
from cdna.checks cimport (
    CHECK_DMA_END, CHECK_DMA_START, CHECK_IO_CROSSING, CHECK_IO_PRESENT, CHECK_IO_RANGE, broken,
)
from cdna.cpu cimport copy_bytes, read_once_u64
from cdna.memory cimport memory_t
from cdna.nic.context cimport IO_PAGE_PRESENT, MEMORY_IO_TABLE, context_t
from cdna.nic.frame cimport gather, piece_t
from cdna.nic.state cimport nic_t


cdef inline uint8_t *machine_address(const memory_t *memory, uint64_t addr, uint32_t len) noexcept nogil:
    """The bytes [addr, addr + len) of machine memory, or NULL outside it."""
    if broken(CHECK_DMA_START, addr > memory.size) or broken(CHECK_DMA_END, len > memory.size - addr):
        return NULL
    return memory.base + addr


cdef inline uint8_t *translate(const nic_t *nic, const context_t *context, uint64_t addr) noexcept nogil:
    """Translates an I/O address and what follows it in its I/O page; NULL where that is not mapped."""
    cdef uint64_t io_page = addr >> PAGE_SHIFT, entry
    if broken(CHECK_IO_RANGE, io_page >= context.io_pages):
        return NULL
    entry = read_once_u64(&context.io_page[io_page])
    if broken(CHECK_IO_PRESENT, not entry & IO_PAGE_PRESENT):
        return NULL
    return nic.memory.base + ((entry & ~<uint64_t>(PAGE_SIZE - 1)) | (addr & (PAGE_SIZE - 1)))


cdef inline uint8_t *dma_address(const nic_t *nic, const context_t *context, uint64_t addr,
                                 uint32_t len) noexcept nogil:
    """The bytes of a buffer where they are contiguous in machine memory; NULL: see `dma_copy`."""
    if context.memory != MEMORY_IO_TABLE:
        return machine_address(nic.memory, addr, len)
    if broken(CHECK_IO_CROSSING, len > PAGE_SIZE - (addr & (PAGE_SIZE - 1))):
        return NULL
    return translate(nic, context, addr)


cdef inline uint32_t dma_copy(const nic_t *nic, const context_t *context, uint64_t addr, uint8_t *bytes_,
                              uint32_t len, bint write) noexcept nogil:
    """Copies a buffer's bytes to `bytes_`, or from there (write). Returns a Fault; nothing follows it."""
    cdef uint8_t *at
    cdef uint32_t n
    if context.memory != MEMORY_IO_TABLE:
        at = machine_address(nic.memory, addr, len)
        if at == NULL:
            return FAULT_ADDRESS
        if write:
            copy_bytes(at, bytes_, len)
        else:
            copy_bytes(bytes_, at, len)
        return FAULT_NONE
    while len:
        n = PAGE_SIZE - (addr & (PAGE_SIZE - 1))
        if n > len:
            n = len
        at = translate(nic, context, addr)
        if at == NULL:
            return FAULT_TRANSLATION
        if write:
            copy_bytes(at, bytes_, n)
        else:
            copy_bytes(bytes_, at, n)
        addr += n
        bytes_ += n
        len -= n
    return FAULT_NONE


cdef inline uint32_t dma_gather(const nic_t *nic, const context_t *context, uint64_t addr,
                                const piece_t *piece, uint32_t skip, uint32_t len) noexcept nogil:
    """Copies bytes [skip, skip + len) of pieces into a buffer. Returns a Fault; nothing follows it."""
    cdef uint8_t *at
    cdef uint32_t n = len
    while len:
        if context.memory == MEMORY_IO_TABLE:
            n = PAGE_SIZE - (addr & (PAGE_SIZE - 1))
            if n > len:
                n = len
        at = dma_address(nic, context, addr, n)
        if at == NULL:
            return FAULT_TRANSLATION if context.memory == MEMORY_IO_TABLE else FAULT_ADDRESS
        gather(at, piece, skip, n)
        addr += n
        skip += n
        len -= n
    return FAULT_NONE
