"""Honest neighbours, the wire and the watch over foreign memory: see arena.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from cdna.abi cimport COMPLETION_F_EOP, DESC_F_EOP, PAGE_SHIFT, PAGE_SIZE, RING_TX, completion_t
from cdna.fuzz.rng cimport next_u64, rng_t
from cdna.fuzz.secret cimport (
    PAGE_WORDS, all_low, bytes_changed, fill_secret, has_secret, holds_secret, page_key,
)
from cdna.guest_driver.queues cimport (
    Queues, announce, buffer_at, buffer_maddr, driver_t, give_free, post, rx_ready, rx_refill, rx_take,
    take_free, tx_reclaim,
)
from cdna.memory cimport Memory, SharedRegion
from cdna.nic.engine cimport engine_poll
from cdna.nic.frame cimport frame_t
from cdna.nic.traffic cimport FRAME_OK, TRAFFIC_MIN_FRAME, Load, frame_check, frame_is_addressed, frame_write
from cdna.nic.wire cimport Wire
from cdna.nic.wire_contract cimport wire_t
from cdna.vmm.protection cimport decode_interrupts

cdef enum:
    WIRE_SLOT = 2048            # bytes for a frame that the wire gives
    SETTLE_ROUNDS = 4096        # more than any backlog of this arena needs
    KIND_BYTE = 4               # of an address


cdef inline uint64_t address(uint32_t kind, uint32_t number) noexcept nogil:
    """The MAC address 02:00:00:00:kind:number, as `context_t.mac`."""
    return <uint64_t>2 | <uint64_t>kind << 32 | <uint64_t>number << 40


def mac_text(kind, number) -> str:
    """The same as text."""
    return f"02:00:00:00:{kind:02x}:{number:02x}"


cdef inline uint64_t read_mac(const uint8_t *at) noexcept nogil:
    cdef uint64_t mac = 0
    memcpy(&mac, at, 6)
    return mac


# --- neighbours -------------------------------------------------------------------------------------------

cdef inline void send_one(arena_t *arena, neighbour_t *who, uint64_t to, uint32_t flow,
                          uint64_t *sent) noexcept nogil:
    cdef driver_t *d = who.driver
    cdef uint32_t buffer = take_free(&d.tx), length
    length = frame_write(buffer_at(d, d.tx_pool, buffer), arena.load, flow, sent[0], to, who.mac)
    post(d, &d.tx, RING_TX, buffer_maddr(d, d.tx_pool, buffer), <uint16_t>length, DESC_F_EOP, buffer)
    sent[0] += 1


cdef void neighbour_sends(arena_t *arena, neighbour_t *who) noexcept nogil:
    """A frame to the next neighbour and one to the wire, where there is room for both."""
    cdef driver_t *d = who.driver
    if tx_reclaim(d) < 2 or d.tx.n_free < 2:
        return
    send_one(arena, who, who.peer_mac, who.index, &who.sent)
    send_one(arena, who, who.wire_mac, TO_WIRE + who.index, &who.sent_wire)
    if announce(d, &d.tx, RING_TX):
        find(arena, FOUND_STATE, who.index, 0, <uint64_t>-d.refusal)


cdef inline bint take_flow(arena_t *arena, const uint8_t *frame, uint32_t len, uint32_t flow,
                           uint64_t *taken) noexcept nogil:
    """The next frame of a neighbour's flow."""
    cdef int error = frame_check(frame, len, arena.load, flow, taken[0])
    if error != FRAME_OK:
        return find(arena, FOUND_LOST, flow, taken[0], error)
    taken[0] += 1
    arena.neighbour_frames += 1
    return True


cdef inline bint take_stranger(arena_t *arena, const uint8_t *frame, uint32_t len,
                               bint begins) noexcept nogil:
    """An attacker's frame, or a part of one: a neighbour hears only the strict ones."""
    arena.attacker_frames += 1
    if begins and frame[6 + KIND_BYTE] != STRICT_KIND:
        return find(arena, FOUND_SPOOFED, read_mac(frame), STRICT_KIND, read_mac(frame + 6))
    if not all_low(frame, len):
        arena.outside += len
        return find(arena, FOUND_CARRIED, read_mac(frame + 6) if begins else 0, 0, len)
    return True


cdef inline bint judge(arena_t *arena, neighbour_t *who, const uint8_t *frame,
                       const completion_t *completion) noexcept nogil:
    """One received buffer."""
    cdef bint begins = not who.within
    who.within = not completion.flags & COMPLETION_F_EOP
    if begins and not who.within and completion.len >= TRAFFIC_MIN_FRAME:
        if frame_is_addressed(frame, who.mac, arena.neighbour[who.before].mac):
            return take_flow(arena, frame, completion.len, who.before, &who.taken)
        if frame_is_addressed(frame, who.mac, address(WIRE_KIND, who.index)):
            return take_flow(arena, frame, completion.len, FROM_WIRE + who.index, &who.taken_wire)
    who.strangers += 1
    return take_stranger(arena, frame, completion.len, begins and completion.len >= 12)


cdef void neighbour_takes(arena_t *arena, neighbour_t *who) noexcept nogil:
    cdef driver_t *d = who.driver
    cdef uint32_t n = rx_ready(d), buffer
    cdef completion_t completion
    if n == 0:
        return
    while n:
        buffer = rx_take(d, &completion)
        if not judge(arena, who, buffer_at(d, d.rx_pool, buffer), &completion):
            return
        give_free(&d.rx, buffer)
        n -= 1
    if rx_refill(d):
        find(arena, FOUND_STATE, who.index, 0, <uint64_t>-d.refusal)


# --- the wire ---------------------------------------------------------------------------------------------

cdef inline bint sees_frame(arena_t *arena, const uint8_t *data, uint32_t len) noexcept nogil:
    """Whose frame it is, and that there is nothing in it which is not its sender's."""
    cdef uint32_t kind = data[6 + KIND_BYTE], number = data[7 + KIND_BYTE]
    if read_mac(data + 6) != address(kind, number):
        return find(arena, FOUND_SPOOFED, read_mac(data), 0, read_mac(data + 6))
    if kind == NEIGHBOUR_KIND and number < NEIGHBOURS:
        return take_flow(arena, data, len, TO_WIRE + number, &arena.wire_taken[number])
    arena.attacker_frames += 1
    if kind == STRICT_KIND:
        if not all_low(data, len):
            arena.outside += len
            return find(arena, FOUND_CARRIED, read_mac(data + 6), 0, len)
        return True
    if kind != LOOSE_KIND or data[12] != 0x81 or data[15] != LOOSE_VLAN:
        return find(arena, FOUND_SPOOFED, read_mac(data), LOOSE_KIND, read_mac(data + 6))
    if has_secret(data, len):
        arena.outside += len
        return find(arena, FOUND_CARRIED, read_mac(data + 6), 0, len)
    return True


cdef int fuzz_tx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    cdef arena_t *arena = <arena_t *>self.state
    cdef int i
    for i in range(n):
        if not sees_frame(arena, frame[i].data, frame[i].len):
            break
    return n


cdef inline void give(frame_t *frame, uint8_t *data, uint32_t len) noexcept nogil:
    frame.data = data
    frame.len = len
    frame.has_offload = 0
    frame.timestamp_ns = 0


cdef inline uint32_t wire_to_attacker(arena_t *arena, uint8_t *at, uint64_t number) noexcept nogil:
    """A frame of plain bytes for an attacker, of either kind, or for nobody. Returns its length."""
    cdef uint32_t which = <uint32_t>(number >> 8) % (arena.wire_attackers + 1)
    cdef bint loose = number & 1
    cdef uint64_t to = address(LOOSE_KIND if loose else STRICT_KIND, which), source = address(WIRE_KIND, 0x40)
    memcpy(at, &to, 6)
    memcpy(at + 6, &source, 6)
    at[12], at[13] = 0x08, 0x00
    if loose:
        at[12], at[13], at[14], at[15] = 0x81, 0, 0, LOOSE_VLAN
    elif number & 0xF0 == 0:
        at[0] = 1                       # multicast
    return 60 + <uint32_t>(number >> 32 & (0x3F if number & 0xE else 0x5FF))


cdef int fuzz_rx(wire_t *self, frame_t *frame, int n) noexcept nogil:
    """In each round a frame for one of the neighbours, and a few for attackers."""
    cdef arena_t *arena = <arena_t *>self.state
    cdef uint32_t who = <uint32_t>(arena.rounds % NEIGHBOURS), i, more
    cdef rng_t rng
    cdef uint8_t *at
    if n < 1 + WIRE_FRAMES:
        return 0
    at = arena.wire_memory              # the NIC has done with what was given before
    give(&frame[0], at, frame_write(at, arena.load, FROM_WIRE + who, arena.wire_given[who],
                                    arena.neighbour[who].mac, address(WIRE_KIND, who)))
    arena.wire_given[who] += 1
    if arena.wire_quiet:
        return 1
    rng.state = arena.wire_seed + arena.rounds
    more = <uint32_t>next_u64(&rng) & (WIRE_FRAMES - 1)
    for i in range(more):
        at += WIRE_SLOT
        give(&frame[1 + i], at, wire_to_attacker(arena, at, next_u64(&rng)))
    return 1 + <int>more


cdef class FuzzWire(Wire):
    """Takes every frame, and looks at it; gives frames to neighbours and attackers. Of one `Arena`."""

    def __init__(self):
        self.name = "fuzz"
        self.c.link = 1


# --- foreign memory ---------------------------------------------------------------------------------------

cdef void make_foreign(arena_t *arena, uint32_t page) noexcept nogil:
    if arena.foreigns == MAX_FOREIGN:
        return
    fill_secret(arena.memory.base + (<uint64_t>page << PAGE_SHIFT), page_key(<uint64_t>page << PAGE_SHIFT),
                PAGE_WORDS)
    arena.foreign[arena.foreigns] = page
    arena.foreigns += 1


cdef void make_own(arena_t *arena, uint32_t page) noexcept nogil:
    cdef uint32_t i
    for i in range(arena.foreigns):
        if arena.foreign[i] == page:
            arena.foreigns -= 1
            arena.foreign[i] = arena.foreign[arena.foreigns]
            memset(arena.memory.base + (<uint64_t>page << PAGE_SHIFT), 0x33, PAGE_SIZE)
            return


cdef bint check_page(arena_t *arena, uint32_t page) noexcept nogil:
    cdef uint64_t maddr = <uint64_t>page << PAGE_SHIFT
    cdef uint8_t *at = arena.memory.base + maddr
    cdef uint32_t first = 0, n
    if holds_secret(at, page_key(maddr), PAGE_WORDS):
        return True
    n = bytes_changed(at, page_key(maddr), PAGE_WORDS, &first)
    arena.outside += n
    return find(arena, FOUND_WRITTEN, page, first, n)


cdef bint add_area(arena_t *arena, uint8_t *at, uint64_t bytes_) noexcept nogil:
    cdef area_t *area = &arena.area[arena.areas]
    if arena.areas == MAX_AREAS or bytes_ < 8:
        return False
    area.at, area.words = at, <uint32_t>(bytes_ // 8)
    area.key = page_key(<uint64_t>(MAX_FOREIGN + arena.areas) << PAGE_SHIFT)
    fill_secret(area.at, area.key, area.words)
    arena.areas += 1
    return True


cdef bint check_area(arena_t *arena, uint32_t i) noexcept nogil:
    cdef const area_t *area = &arena.area[i]
    cdef uint32_t first = 0, n
    if holds_secret(area.at, area.key, area.words):
        return True
    n = bytes_changed(area.at, area.key, area.words, &first)
    arena.outside += n
    return find(arena, FOUND_AREA, i, first, n)


cdef bint check_foreign(arena_t *arena) noexcept nogil:
    cdef uint32_t i
    for i in range(arena.areas):
        if not check_area(arena, i):
            return False
    for i in range(arena.foreigns):
        if not check_page(arena, arena.foreign[i]):
            return False
    return True


cdef bint check_owners(arena_t *arena) noexcept nogil:
    cdef uint32_t page
    for page in range(arena.memory.pages):
        if arena.memory.page[page].owner != arena.owner[page]:
            return find(arena, FOUND_OWNER, page, arena.owner[page], arena.memory.page[page].owner)
    return True


# --- rounds -----------------------------------------------------------------------------------------------

cdef void no_interrupt(uint32_t context, void *arg) noexcept nogil:
    pass


cdef bint arena_round(arena_t *arena, int budget) noexcept nogil:
    cdef uint32_t i
    neighbour_sends(arena, &arena.neighbour[arena.rounds % NEIGHBOURS])
    engine_poll(arena.nic, budget)
    for i in range(NEIGHBOURS):
        neighbour_takes(arena, &arena.neighbour[i])
    arena.rounds += 1
    if arena.foreign_next >= arena.foreigns + arena.areas:
        arena.foreign_next = 0
    if arena.foreign_next < arena.foreigns:
        check_page(arena, arena.foreign[arena.foreign_next])
    elif arena.areas:
        check_area(arena, arena.foreign_next - arena.foreigns)
    arena.foreign_next += 1
    if arena.rounds % IRQ_ROUNDS == 0:
        decode_interrupts(arena.vmm, no_interrupt, NULL)
    return arena.found == FOUND_NOTHING


cdef bint all_arrived(const arena_t *arena) noexcept nogil:
    cdef const neighbour_t *who
    cdef uint32_t i
    for i in range(NEIGHBOURS):
        who = &arena.neighbour[i]
        if arena.wire_taken[i] != who.sent_wire or who.taken_wire != arena.wire_given[i] or \
                who.taken != arena.neighbour[who.before].sent:
            return False
    return True


cdef bint arena_settle(arena_t *arena) noexcept nogil:
    cdef uint32_t i, j
    for i in range(SETTLE_ROUNDS):
        engine_poll(arena.nic, 64)
        for j in range(NEIGHBOURS):
            neighbour_takes(arena, &arena.neighbour[j])
        arena.rounds += 1
        if arena.found:
            return False
        if all_arrived(arena):
            break
    else:
        for i in range(NEIGHBOURS):
            find(arena, FOUND_LOST, i, arena.neighbour[arena.neighbour[i].before].sent,
                 arena.neighbour[i].taken)
        return False
    return check_foreign(arena) and check_owners(arena)


cdef class Arena:
    """Over a `Machine` whose wire is a `FuzzWire`, with the drivers of the three neighbours.

    foreign: pages that no attacker owns and that nobody uses; they get secrets.
    """

    def __init__(self, machine, FuzzWire wire, list drivers, Load load, foreign, *, seed, attackers):
        cdef uint32_t i, page
        cdef neighbour_t *who
        cdef Memory memory = machine.memory
        self.machine, self.load = machine, load
        self.nic, self.tables = machine.nic, machine.vmm.tables
        self._region = SharedRegion(sizeof(arena_t))
        self._owners = SharedRegion(memory.c.pages * sizeof(uint32_t))
        self._frames = SharedRegion((1 + WIRE_FRAMES) * WIRE_SLOT)
        self._drivers = drivers
        self.c = <arena_t *>self._region.base
        self.c.nic, self.c.vmm, self.c.memory = self.nic.c, self.tables.c, memory.c
        self.c.load = load.c
        self.c.owner = <uint32_t *>self._owners.base
        self.c.wire_memory = self._frames.base
        memset(self.c.wire_memory, 0x21, (1 + WIRE_FRAMES) * WIRE_SLOT)
        self.c.wire_seed, self.c.wire_attackers = seed, attackers
        for i in range(NEIGHBOURS):
            who = &self.c.neighbour[i]
            who.driver = &(<Queues?>drivers[i]).c
            who.index, who.before = i, (i + NEIGHBOURS - 1) % NEIGHBOURS
            who.mac = address(NEIGHBOUR_KIND, i)
            who.peer_mac = address(NEIGHBOUR_KIND, (i + 1) % NEIGHBOURS)
            who.wire_mac = address(WIRE_KIND, 0x20 + i)
        for page in foreign:
            make_foreign(self.c, page)
        for i in range(memory.c.pages):
            self.c.owner[i] = memory.c.page[i].owner
        wire.arena = self.c
        wire.c.state = self.c
        wire.c.tx = fuzz_tx
        wire.c.rx = fuzz_rx

    def finding(self):
        """(Finding, where, wanted, found) of the first one; FOUND_NOTHING where there is none."""
        return Finding(self.c.found), self.c.found_at, self.c.found_wanted, self.c.found_is

    def counts(self) -> dict:
        """What was counted, by name; faults and refusals by number."""
        return {
            "attempts": self.c.attempts, "descriptors": self.c.descriptors, "frames": self.c.neighbour_frames,
            "outside": self.c.outside, "lost": self.c.lost, "attacker_frames": self.c.attacker_frames,
            "rounds": self.c.rounds, "faults": {i: self.c.fault[i] for i in range(32) if self.c.fault[i]},
            "refusals": {-i: self.c.refusal[i] for i in range(16) if self.c.refusal[i]},
        }

    def check(self) -> bool:
        """All foreign memory and all owners, now."""
        return check_foreign(self.c) and check_owners(self.c)
