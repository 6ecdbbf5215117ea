"""Attacks on native rings, as steps: see ext/cdna/fuzz/native_attacks.pyx."""

from libc.stdint cimport uint32_t, uint64_t

from cdna.fuzz.action cimport action_t
from cdna.fuzz.arena cimport Arena
from cdna.fuzz.native_guest cimport attacker_t
from cdna.fuzz.rng cimport rng_t
from cdna.memory cimport SharedRegion

cpdef enum NativeOp:
    NATIVE_POST             # descriptors, as the mode has it, some of them bad
    NATIVE_DUPLICATE        # one descriptor many times
    NATIVE_MAILBOX          # mailboxes and doorbells: beyond the ring, back, any number, any mailbox
    NATIVE_REPLAY           # announces what was used before
    NATIVE_CHANGE           # descriptors, or what they point to, after the NIC has seen the first of them
    NATIVE_STRAY            # validated: writes to a slot of the ring through a mapping that should not be
    NATIVE_MAP              # IOMMU mappings, of own pages and of others
    NATIVE_UNMAP
    NATIVE_GIVE             # gives a page away, perhaps with DMA in flight
    NATIVE_TAKE             # gets it back
    NATIVE_FOREIGN          # hypercalls in somebody else's name, or about somebody else's context
    NATIVE_SCRIBBLE         # over its context page
    NATIVE_REVOKE           # the VMM takes the context away, in the middle of anything, and gives it anew
    NATIVE_REASSIGN         # the same through the whole control plane
    NATIVE_POLL             # rounds of the NIC
    NATIVE_OPS
    NATIVE_PLANT            # never made from a seed: a flaw of the VMM, for tests of the watch itself

cpdef enum Plant:
    PLANT_PAGE              # a foreign page in an attacker's I/O table, or many in its possession
    PLANT_PIN               # a pin that nobody drops
    PLANT_UNPIN             # a pin that was dropped before its time
    PLANT_LOSS              # the wire is down for some rounds

cdef class NativeAttacks(Arena):
    cdef attacker_t *attacker
    cdef uint32_t attackers
    cdef uint32_t victim            # domain that pages are given to
    cdef uint32_t *expected         # pins of each page, as they are counted anew
    cdef list _contexts
    cdef list _parts
    cdef uint64_t steps
    cdef void _direct_map(self, attacker_t *who) noexcept
    cdef void _through_control(self, attacker_t *who) noexcept
    cdef uint64_t _run(self, const action_t *action, uint64_t n) noexcept nogil
    cdef void _step(self, const action_t *action) noexcept nogil
    cdef void _plant(self, attacker_t *who, uint32_t argument, rng_t *rng) noexcept nogil
    cdef void _restart(self, attacker_t *who, uint64_t seed) noexcept nogil
    cdef bint _check_pins(self) noexcept nogil
