"""The memory that a frontend lends: its files mapped here, and what happens when one of them shrinks.

A file that shrinks under a mapping raises SIGBUS in whoever touches it next, which is the engine. The handler
puts zeros of our own in the place of the mapping and marks the table; the engine goes on, and stops that
guest's context at its next look (`notify.pxd`). A fault anywhere else is left to who handled it
before.
"""
# build: explored

import fcntl
import os

cimport cython
from libc.errno cimport EINVAL, errno
from libc.signal cimport SIGBUS
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from posix.mman cimport (
    MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED, PROT_NONE, PROT_READ,
    PROT_WRITE, mmap, munmap,
)

from cdna.cpu cimport load_u32, store_u32
from cdna.nic.virtio.memory cimport guest_memory_t, mapping_t, region_t
from cdna.virtio cimport VIRTIO_MAX_REGIONS

from cdna.control_checks import Control, broken
from cdna.errors import ConfigError
from cdna.nic.virtio.regions import Mapping, Region, check_regions

cdef extern from "<signal.h>" nogil:
    ctypedef struct siginfo_t:
        void *si_addr
    ctypedef struct sigset_t:
        pass
    struct sigaction_t "sigaction":
        void (*sa_sigaction)(int, siginfo_t *, void *) noexcept nogil
        sigset_t sa_mask
        int sa_flags
    int sigaction(int number, const sigaction_t *act, sigaction_t *old)
    int sigemptyset(sigset_t *set)
    enum:
        SA_SIGINFO
        SA_ONSTACK

cdef extern from "<sys/vfs.h>" nogil:
    struct statfs_t "statfs":
        long f_type
    int fstatfs(int fd, statfs_t *found)

cdef enum:
    HUGETLBFS_MAGIC = 0x958458f6        # linux/magic.h

cdef enum:
    LOG = VIRTIO_MAX_REGIONS            # in `guest_memory_t.mapping`
    INFLIGHT = LOG + 1
    MAPPINGS = INFLIGHT + 1

# Bytes that one guest may have mapped, and all together. A file may be all holes, but addresses are few: some
# of the 2**47 that a process has are left to other guests, and to the NIC itself.
MAX_MAPPED = 1 << 42
MAX_MAPPED_BY_ALL = 1 << 46


# --- files that shrink ------------------------------------------------------------------------------------

cdef guest_memory_t *_tables = NULL     # all that are mapped; changed while their engines stand still
cdef sigaction_t _before


cdef bint put_zeros(const mapping_t *mapping) noexcept nogil:
    """Replaces a mapping by zeros of ours: all of it, as of huge pages no part can be."""
    return mmap(mapping.base, mapping.size, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) != MAP_FAILED


cdef bint replaced(guest_memory_t *memory, const uint8_t *at) noexcept nogil:
    """Whether `at` lies in a mapping of this table, which is zeros then."""
    cdef uint32_t i
    for i in range(MAPPINGS):
        if <uint64_t>(at - memory.mapping[i].base) < memory.mapping[i].size:
            return put_zeros(&memory.mapping[i])
    return False


cdef void on_sigbus(int number, siginfo_t *info, void *context) noexcept nogil:
    cdef guest_memory_t *memory = _tables
    while memory != NULL:
        if replaced(memory, <uint8_t *>info.si_addr):
            store_u32(&memory.gone, 1)
            return
        memory = memory.next
    sigaction(SIGBUS, &_before, NULL)   # the instruction is tried again, and then it is theirs


cdef _handle_sigbus():
    cdef sigaction_t action
    cdef sigaction_t now
    sigaction(SIGBUS, NULL, &now)
    if now.sa_sigaction == on_sigbus:
        return
    memset(&action, 0, sizeof(action))
    action.sa_sigaction = on_sigbus
    action.sa_flags = SA_SIGINFO | SA_ONSTACK
    sigemptyset(&action.sa_mask)
    sigaction(SIGBUS, &action, &_before)


# --- one mapping ------------------------------------------------------------------------------------------

_mapped = 0                             # bytes, of all guests


cdef bint _is_huge(int fd) noexcept:
    """Whether a memory file lies in a hugetlbfs. A page of a tmpfs may be as large."""
    cdef statfs_t found
    return fstatfs(fd, &found) == 0 and found.f_type == HUGETLBFS_MAGIC


def _size_of(int fd, str what):
    """(bytes, bytes of a page, device and inode) of a memory file. ConfigError: it is none.

    Only memory files have seals; who asks for them asks no file system, which might make the NIC wait.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        if error.errno != EINVAL:
            raise ConfigError(f"{what}: {error.strerror}") from None
        if broken(Control.CHECK_FILE_MEMORY, True):
            raise ConfigError(
                f"{what}: no memory file; give a memfd, or a file in a tmpfs or hugetlbfs") from None
    found = os.fstat(fd)
    block = max(found.st_blksize, 4096)         # of a hugetlbfs: a huge page
    return found.st_size, block if block & (block - 1) == 0 else 4096, (found.st_dev, found.st_ino)


cdef _map(int fd, uint64_t size, uint64_t offset, str what, held, lent):
    """(address of the first byte, address and length of the mapping, bytes of its guards, `Mapping` or None).

    ConfigError: it cannot be mapped.

    held: bytes that its guest has mapped beside it. lent: what counts them, or None.
    """
    global _mapped
    cdef uint64_t block, start, length
    cdef void *base
    end, block, file = _size_of(fd, what)
    if broken(Control.CHECK_FILE_END, size == 0 or offset > end or size > end - offset):
        raise ConfigError(f"{what}: {size} bytes from {offset} in a file of {end}")
    if broken(Control.CHECK_FILE_PAGE, offset & 4095):
        raise ConfigError(f"{what}: it begins at {offset} of its file; give a whole number of pages of 4096")
    start = offset & ~(block - 1)
    length = (offset - start + size + block - 1) & ~(block - 1)
    if (broken(Control.CHECK_MAPPED, held + length > MAX_MAPPED)
            or broken(Control.CHECK_MAPPED_BY_ALL, _mapped + length > MAX_MAPPED_BY_ALL)):
        raise ConfigError(f"{what}: {size} bytes more; a guest maps up to {MAX_MAPPED >> 40} TiB, all guests "
                          f"{MAX_MAPPED_BY_ALL >> 40}")
    account = None
    if lent is not None:
        account = Mapping(file, length, end + block - 1 & ~(block - 1), _is_huge(fd))
        lent.take(what, account, held)
    base = _reserve(length, block)
    if base == NULL or mmap(base, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd,
                            start) == MAP_FAILED:
        reason = os.strerror(errno)
        if base != NULL:
            munmap(<uint8_t *>base - block, length + 2 * block)
        if lent is not None:
            lent.give(account)
        raise ConfigError(f"{what}: cannot be mapped: {reason}")
    _mapped += length
    return <uintptr_t>base + (offset - start), <uintptr_t>base, length, block, account


cdef void *_reserve(uint64_t length, uint64_t block) noexcept:
    """Addresses for a mapping in whole blocks, and a block before and behind it that nobody may touch."""
    cdef uint64_t wanted = length + 3 * block, start, first
    cdef void *base = mmap(NULL, wanted, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if base == MAP_FAILED:
        return NULL
    first = <uintptr_t>base
    start = (first + block - 1) & ~(block - 1)
    if start > first:
        munmap(base, start - first)
    munmap(<void *><uintptr_t>(start + length + 2 * block), first + wanted - (start + length + 2 * block))
    return <void *><uintptr_t>(start + block)


cdef _unmap(tuple mapped, lent):
    global _mapped
    _, base, length, guard, account = mapped
    munmap(<void *><uintptr_t>(base - guard), <size_t>(length + 2 * guard))
    _mapped -= length
    if lent is not None:
        lent.give(account)


def _length(mapped) -> int:
    """Bytes of a mapping; None: there is none."""
    return mapped[2] if mapped is not None else 0


@cython.no_gc_clear             # `__dealloc__` has to find what is mapped
cdef class GuestMapping:
    """The memory table of one guest.

    The engine stands still where the table changes. To map and to unmap takes as long as a guest makes it:
    files are mapped before (`mapped`), and what leaves the table is unmapped after (`unmap_left`).

    Descriptors stay the caller's; it may close them afterwards. Errors: ConfigError, and nothing has changed.
    lent: what counts the bytes that are mapped (`cdna.vmm.vhost_user.lent`), None: nothing does.
    """

    def __cinit__(self, lent=None):
        global _tables
        self.c = <guest_memory_t *>calloc(1, sizeof(guest_memory_t))
        if self.c == NULL:
            raise MemoryError
        self._maps = []
        self._left = []
        self._lent = lent
        self.c.next = _tables
        _tables = self.c
        _handle_sigbus()

    def mapped(self, regions) -> list:
        """These regions mapped, for `replace`. The engine may run."""
        regions = sorted(regions, key=lambda region: region.guest_addr)     # as the engine searches them
        check_regions(regions)
        maps = []
        held = _length(self._log) + _length(self._inflight)
        try:
            for i, region in enumerate(regions):
                mapped = _map(region.fd, region.size, region.offset, f"memory region {i}", held, self._lent)
                maps.append(mapped)
                held += _length(mapped)
        except ConfigError:
            for mapped in maps:
                _unmap(mapped, self._lent)
            raise
        return list(zip(regions, maps))

    def replace(self, regions):
        """The table is these mapped regions from now on."""
        memset(self.c.region, 0, sizeof(self.c.region))
        memset(self.c.mapping, 0, LOG * sizeof(mapping_t))
        self.c.regions = 0
        self._left += self._maps
        self._maps = []
        store_u32(&self.c.gone, 0)
        for region, mapped in regions:
            self._insert(region, mapped)

    def _insert(self, region, mapped):
        cdef uint32_t at = self.c.regions, i
        cdef region_t *entry
        while at and self.c.region[at - 1].guest_addr > <uint64_t>region.guest_addr:
            at -= 1
        for i in range(self.c.regions, at, -1):
            self.c.region[i] = self.c.region[i - 1]
            self.c.mapping[i] = self.c.mapping[i - 1]
        entry = &self.c.region[at]
        entry.guest_addr = region.guest_addr
        entry.user_addr = region.user_addr
        entry.base = <uint8_t *><uintptr_t>mapped[0]
        entry.size = region.size
        self._place(at, mapped)
        self.c.regions += 1
        self._maps.insert(at, mapped)

    cdef _place(self, uint32_t which, mapped):
        """Tells the signal handler of a mapping, or that there is none any more."""
        cdef mapping_t *entry = &self.c.mapping[which]
        entry.size = 0
        if mapped is not None:
            entry.base = <uint8_t *><uintptr_t>mapped[1]
            entry.size = mapped[2]

    @property
    def held(self) -> int:
        """Bytes that are mapped: of the table, the log and the inflight area."""
        return sum(map(_length, [*self._maps, self._log, self._inflight]))

    def mapped_beside(self, region):
        """One more region mapped, for `add`. The engine may run."""
        check_regions([*(Region(*known, -1, 0) for known in self.regions()), region])
        return region, _map(region.fd, region.size, region.offset, "memory region", self.held, self._lent)

    def add(self, region):
        """The table has this mapped region, too."""
        self._insert(*region)

    def remove(self, guest_addr, size, user_addr):
        cdef uint32_t i
        wanted = (guest_addr, size, user_addr)
        known = self.regions()
        if wanted not in known:
            raise ConfigError(f"memory region at {guest_addr:#x}: there is none of {size} bytes")
        i = known.index(wanted)
        mapped = self._maps.pop(i)
        self.c.regions -= 1
        while i < self.c.regions:
            self.c.region[i] = self.c.region[i + 1]
            self.c.mapping[i] = self.c.mapping[i + 1]
            i += 1
        memset(&self.c.region[self.c.regions], 0, sizeof(region_t))
        self._place(self.c.regions, None)
        self._left.append(mapped)

    def regions(self):
        """(guest address, bytes, user address) of each region."""
        return [(self.c.region[i].guest_addr, self.c.region[i].size, self.c.region[i].user_addr)
                for i in range(self.c.regions)]

    def set_log(self, int fd, uint64_t size, uint64_t offset):
        """Maps the dirty log: a bit for each 4 KiB of guest addresses; fd -1: there is none any more."""
        mapped = None
        if fd >= 0:
            mapped = _map(fd, size, offset, "dirty log", self.held - _length(self._log), self._lent)
        self.c.log = NULL
        self.c.log_size = 0
        self._place(LOG, mapped)
        self._leave(self._log)
        self._log = mapped
        if mapped is not None:
            self.c.log = <uint8_t *><uintptr_t>mapped[0]
            self.c.log_size = size

    cdef uint8_t *map_inflight(self, int fd, uint64_t size, uint64_t offset) except? NULL:
        """Maps the inflight area; fd -1: there is none any more."""
        mapped = None
        if fd >= 0:
            held = self.held - _length(self._inflight)
            mapped = _map(fd, size, offset, "inflight area", held, self._lent)
        self.c.inflight = NULL
        self.c.inflight_size = 0
        self._place(INFLIGHT, mapped)
        self._leave(self._inflight)
        self._inflight = mapped
        if mapped is not None:
            self.c.inflight = <uint8_t *><uintptr_t>mapped[0]
            self.c.inflight_size = size
        return self.c.inflight

    @property
    def gone(self) -> bool:
        """Whether a file has shrunk under its mapping."""
        return bool(load_u32(&self.c.gone))

    def _leave(self, mapped):
        if mapped is not None:
            self._left.append(mapped)

    def unmap_left(self):
        """Unmaps what the table has no more. The engine may run."""
        while self._left:
            _unmap(self._left.pop(), self._lent)

    def close(self):
        """The table is empty from now on, with `unmap_left` to be called. Closing twice is harmless."""
        self.replace(())
        self.set_log(-1, 0, 0)
        self.map_inflight(-1, 0, 0)

    def __dealloc__(self):
        global _tables
        cdef guest_memory_t **link = &_tables
        if self.c == NULL:
            return
        while link[0] != NULL and link[0] != self.c:
            link = &link[0].next
        if link[0] == self.c:
            link[0] = self.c.next
        for mapped in (*self._maps, *self._left, self._log, self._inflight):
            if mapped is not None:
                _unmap(mapped, self._lent)
        free(self.c)
