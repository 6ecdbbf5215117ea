"""Where attacks happen: foreign memory that is watched, honest neighbours, a wire that looks at every frame.

    attackers         neighbours: three honest guests in a circle, and the wire
        |               |      alice -> bob -> carol -> alice, each -> wire, wire -> each
      [ contexts of one NIC, stepped in this thread ]
        |
      wire: whose frame is it, is it whole and next, does it carry what its sender may not know

A neighbour's frames carry their flow and their number and are compared byte by byte. What attackers may not
read or write holds secrets (`secret.pxd`). An attacker is strict, with bytes of its own alone, or loose: its
frames are worked on by the NIC. Loose ones have a VLAN of their own, so that nobody else gets their bytes.

Addresses, six bytes: 02 00 00 00 KIND number.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cdna.abi cimport completion_t
from cdna.guest_driver.queues cimport driver_t
from cdna.memory cimport SharedRegion, memory_t
from cdna.nic.device cimport Nic
from cdna.nic.frame cimport frame_t
from cdna.nic.state cimport nic_t
from cdna.nic.traffic cimport Load, load_t
from cdna.nic.wire cimport Wire
from cdna.nic.wire_contract cimport wire_t
from cdna.vmm.protection cimport vmm_t
from cdna.vmm.tables cimport Tables

cdef enum:
    NEIGHBOURS = 3
    MAX_FOREIGN = 4096          # pages
    MAX_AREAS = 128
    NEIGHBOUR_KIND = 0x0A       # in addresses
    STRICT_KIND = 0x0B
    LOOSE_KIND = 0x0C
    WIRE_KIND = 0x0D            # stations beyond the wire
    LOOSE_VLAN = 100
    TO_WIRE = 8                 # flows: neighbour i to the next one is i, to the wire 8 + i, from it 16 + i
    FROM_WIRE = 16
    IRQ_ROUNDS = 32             # rounds between two looks at the interrupt vectors
    WIRE_FRAMES = 4             # to attackers, in a round at most

cpdef enum Finding:             # why an arena stopped
    FOUND_NOTHING = 0
    FOUND_WRITTEN               # a foreign page is not as it was
    FOUND_CARRIED               # an attacker's frame carries a secret
    FOUND_LOST                  # a neighbour's frame was lost, repeated, changed or late
    FOUND_SPOOFED               # a frame in the name of somebody else
    FOUND_PINS                  # pins of a page are not what is outstanding
    FOUND_OWNER                 # a page of another owner than it was given
    FOUND_SEQUENCE              # the NIC used a descriptor of another number
    FOUND_GIVEN                 # a page changed hands with DMA outstanding
    FOUND_LEFT                  # pins of a context that was revoked
    FOUND_STATE                 # a state that cannot be
    FOUND_AREA                  # as FOUND_WRITTEN, of other memory than the machine's

cdef struct neighbour_t:
    driver_t *driver
    uint64_t mac
    uint64_t peer_mac           # to whom it sends
    uint64_t wire_mac
    uint32_t index
    uint32_t before             # index of the one that sends to it
    uint64_t sent               # frames to the peer
    uint64_t sent_wire
    uint64_t taken              # from the one before
    uint64_t taken_wire
    uint64_t strangers          # frames of attackers
    uint32_t within             # 1: the next buffer goes on with an attacker's frame

cdef struct area_t:             # foreign memory that is not machine memory
    uint8_t *at                 # eight bytes aligned
    uint64_t key
    uint32_t words

cdef struct arena_t:
    nic_t *nic
    vmm_t *vmm
    memory_t *memory
    const load_t *load
    neighbour_t neighbour[3]
    uint64_t rounds
    # the wire
    uint64_t wire_taken[3]      # frames of each neighbour that arrived there
    uint64_t wire_given[3]      # frames for each neighbour that it has sent
    uint64_t wire_seed
    uint32_t wire_attackers     # frames to this many attackers, by number
    uint32_t wire_quiet         # 1: no more frames to them
    uint8_t *wire_memory        # frames that it gives in a round: one for a neighbour, those for attackers
    # foreign memory
    uint32_t foreign[4096]      # pages that hold a secret
    uint32_t foreigns
    uint32_t foreign_next
    area_t area[128]
    uint32_t areas
    uint32_t *owner             # of every page, as it was last given
    # what was found, and counts
    uint32_t found              # Finding
    uint64_t found_at           # page, flow, context
    uint64_t found_wanted
    uint64_t found_is
    uint64_t attempts
    uint64_t descriptors
    uint64_t neighbour_frames
    uint64_t attacker_frames    # that came out somewhere
    uint64_t outside
    uint64_t lost
    uint64_t fault[32]          # by Fault
    uint64_t refusal[16]        # by -Refusal


cdef inline bint find(arena_t *arena, uint32_t what, uint64_t at, uint64_t wanted,
                      uint64_t is_) noexcept nogil:
    """The first finding stops the arena. Always False."""
    if arena.found == FOUND_NOTHING:
        arena.found = what
        arena.found_at, arena.found_wanted, arena.found_is = at, wanted, is_
        if what == FOUND_LOST:
            arena.lost += 1
    return False


cdef inline void count_refusal(arena_t *arena, int status) noexcept nogil:
    if status < 0:
        arena.refusal[-status & 15] += 1


cdef class FuzzWire(Wire):
    cdef arena_t *arena

cdef class Arena:
    cdef arena_t *c
    cdef SharedRegion _region
    cdef SharedRegion _owners
    cdef SharedRegion _frames
    cdef readonly object machine
    cdef readonly Load load
    cdef readonly Nic nic
    cdef readonly Tables tables
    cdef list _drivers

# One round: neighbours send and take, the NIC works, the next foreign page is looked at. False: found
# something.
cdef bint arena_round(arena_t *arena, int budget) noexcept nogil
# Rounds until neighbours have all their frames; then all foreign memory. False: something found.
cdef bint arena_settle(arena_t *arena) noexcept nogil
cdef bint check_foreign(arena_t *arena) noexcept nogil
# Bytes that are foreign from now on, wherever they lie; `arena.areas = 0` before they are unmapped.
cdef bint add_area(arena_t *arena, uint8_t *at, uint64_t bytes_) noexcept nogil
cdef bint check_owners(arena_t *arena) noexcept nogil
# Makes a page foreign: it holds a secret from now on.
cdef void make_foreign(arena_t *arena, uint32_t page) noexcept nogil
# A foreign page that becomes an attacker's: the secret goes.
cdef void make_own(arena_t *arena, uint32_t page) noexcept nogil
