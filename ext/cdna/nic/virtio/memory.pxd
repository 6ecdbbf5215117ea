"""A virtio guest's memory as its memory table gives it, and the log of what was written there.

Every address that a guest names is looked up here, at every use: what lies outside the table does not
exist. The table changes only while the engine stands still.

      guest address      region                    this process
      0x0000_0000  +------------------+  base ->  +------------+
                   |     size         |           |  mmap of   |
                   +------------------+           |  its file  |
      0x1_0000_0000 ...                           +------------+
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.abi cimport PAGE_SHIFT
from cdna.checks cimport (
    CHECK_GUEST_ADDRESS, CHECK_GUEST_BYTES, CHECK_GUEST_RUN, CHECK_LOG_END, CHECK_USER_ADDRESS,
    CHECK_USER_END, broken,
)
from cdna.cpu cimport or_u8

cdef struct region_t:
    uint64_t guest_addr
    uint64_t size
    uint64_t user_addr          # where the frontend's process has it; ring addresses are given so
    uint8_t *base               # of guest_addr here

cdef struct mapping_t:          # of a file: whole pages of it, in a hugetlbfs huge ones
    uint8_t *base
    uint64_t size

cdef struct guest_memory_t:
    region_t region[64]         # VIRTIO_MAX_REGIONS, by guest address
    uint32_t regions
    uint32_t gone               # 1: a file shrank; its pages are zeros of ours now
    uint8_t *log                # the dirty log, a bit a page of guest addresses, or NULL
    uint64_t log_size           # bytes
    uint8_t *inflight           # the inflight area, or NULL
    uint64_t inflight_size
    # For the signal handler: what is mapped, region[i] at i, then log and inflight area; and all tables.
    mapping_t mapping[66]
    guest_memory_t *next


cdef inline uint32_t region_below(const guest_memory_t *memory, uint64_t addr) noexcept nogil:
    """The last region that begins at or below a guest address; 0 where there is none."""
    cdef uint32_t low = 0, high = memory.regions, middle
    while low + 1 < high:
        middle = (low + high) >> 1
        if memory.region[middle].guest_addr <= addr:
            low = middle
        else:
            high = middle
    return low


cdef inline uint8_t *guest_run(const guest_memory_t *memory, uint64_t addr, uint32_t len, uint32_t *hint,
                               uint32_t *run) noexcept nogil:
    """Where guest address `addr` lies, and how many of `len` bytes follow there. NULL: in no region.

    hint: the region of the last look-up, which is most often the one.
    """
    cdef const region_t *region = &memory.region[hint[0]]
    cdef uint64_t offset = addr - region.guest_addr
    if offset >= region.size:
        hint[0] = region_below(memory, addr)
        region = &memory.region[hint[0]]
        offset = addr - region.guest_addr
        if broken(CHECK_GUEST_ADDRESS, offset >= region.size):
            return NULL
    run[0] = len
    if broken(CHECK_GUEST_RUN, len > region.size - offset):
        run[0] = <uint32_t>(region.size - offset)
    return region.base + offset


cdef inline uint8_t *guest_bytes(const guest_memory_t *memory, uint64_t addr, uint32_t len,
                                 uint32_t *hint) noexcept nogil:
    """The bytes [addr, addr + len) where they lie in one region, or NULL."""
    cdef uint32_t run = 0
    cdef uint8_t *at = guest_run(memory, addr, len, hint, &run)
    return NULL if broken(CHECK_GUEST_BYTES, run != len) else at


cdef inline uint8_t *user_bytes(const guest_memory_t *memory, uint64_t addr, uint64_t len) noexcept nogil:
    """The bytes at an address of the frontend's process, or NULL."""
    cdef uint32_t i
    cdef uint64_t offset
    for i in range(memory.regions):
        offset = addr - memory.region[i].user_addr
        if not broken(CHECK_USER_ADDRESS, offset >= memory.region[i].size) and \
                not broken(CHECK_USER_END, len > memory.region[i].size - offset):
            return memory.region[i].base + offset
    return NULL


cdef inline void log_range(const guest_memory_t *memory, uint64_t addr, uint64_t len) noexcept nogil:
    """Marks the pages of guest addresses [addr, addr + len) as written: after the write, so that whoever
    clears the mark copies what was written.
    """
    cdef uint64_t page = addr >> PAGE_SHIFT, last
    if len == 0:
        return
    last = (addr + len - 1) >> PAGE_SHIFT
    while page <= last and not broken(CHECK_LOG_END, page >> 3 >= memory.log_size):
        or_u8(&memory.log[page >> 3], <uint8_t>(1 << (page & 7)))
        page += 1


cdef inline void log_bytes(const guest_memory_t *memory, const uint8_t *at, uint64_t len) noexcept nogil:
    """As `log_range`, of bytes that `guest_run` found."""
    cdef uint32_t i
    cdef uint64_t offset
    for i in range(memory.regions):
        offset = <uint64_t>(at - memory.region[i].base)
        if offset < memory.region[i].size:
            log_range(memory, memory.region[i].guest_addr + offset, len)
            return
