"""A reference model of memory, rings, protection, delivery and interrupts, in plain Python.

It says what must be observable after each operation, with lists and dictionaries in place of rings and
vectors. It knows no VLANs, offloads, rate limits or full wires; those have tests of their own.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

from cdna.abi import CompletionFlag, ContextState, DescFlag, Fault, Limits, Mailbox, Protection, Refusal, Ring

PAGE = 4096
FREE = 0xFFFFFFFF
WORD = 0xFFFFFFFF
QUANTUM = 16384  # bytes of one turn
VECTORS = 256
BURST = 32
BROADCAST = b"\xff" * 6
TAGS = [b"\x81\x00", b"\x88\xa8", b"\x91\x00", b"\x92\x00", b"\x93\x00"]  # of customers, then of providers
EOP = DescFlag.DESC_F_EOP
TX, RX = Ring.RING_TX, Ring.RING_RX
VALIDATED, IOMMU = Protection.PROTECTION_VALIDATED, Protection.PROTECTION_IOMMU
RUNNING, FAULTED = ContextState.CONTEXT_RUNNING, ContextState.CONTEXT_FAULTED

Slot = tuple[int, int, int, int]  # address, length, flags, sequence number


class Stop(Exception):
    """The NIC finds something wrong with a descriptor."""

    def __init__(self, fault: Fault, offset: int, found: int) -> None:
        super().__init__(fault, offset, found)
        self.fault, self.offset, self.found = fault, offset, found


@dataclass
class ModelRing:
    size: int
    modulus: int
    slots: list[Slot] = field(init=False)
    completions: list[tuple[int, int]] = field(init=False)
    producer: int = 0  # what the NIC accepted
    consumer: int = 0
    enqueued: int = 0  # the VMM's producer
    reaped: int = 0

    def __post_init__(self) -> None:
        self.slots = [(0, 0, 0, 0)] * self.size
        self.completions = [(0, 0)] * self.size

    def seq(self, index: int) -> int:
        """The sequence number of the descriptor with this index; the first one carries 1."""
        return (1 + index) % self.modulus

    def at(self, offset: int) -> Slot:
        return self.slots[(self.consumer + offset) % self.size]

    @property
    def posted(self) -> int:
        return self.producer - self.consumer


@dataclass
class ModelContext:
    index: int
    domain: int
    mac: bytes
    protection: Protection
    rings: dict[Ring, ModelRing]
    anti_spoof: bool = True
    promiscuous: bool = False
    all_multicast: bool = False
    storm: int | None = None  # frames left of its storm limit, which no time refills here; None: it has none
    flood: int | None = None
    io_pages: int = 0
    io_table: dict[int, int] = field(default_factory=dict)
    limbo: list[int] = field(default_factory=list)
    state: ContextState = RUNNING
    fault: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)  # reason, ring, index, expected, found
    mailbox: dict[int, int] = field(default_factory=lambda: dict.fromkeys(range(24), 0))
    doorbell: int = 0
    published: dict[Ring, int] = field(default_factory=lambda: {TX: 0, RX: 0})
    active: bool = False
    deficit: int = 0
    enabled: bool = False
    dirty: bool = False
    updated: bool = False
    reported: int = 0  # descriptors completed when the context was last reported
    stats: Counter[str] = field(default_factory=Counter)
    events: int = 0


class Model:
    """The machine: `pages` of memory, `contexts` contexts, each reported after `irq_frames` descriptors."""

    def __init__(self, pages: int, contexts: int, irq_frames: int) -> None:
        self.memory = bytearray(pages * PAGE)
        self.owner = [FREE] * pages
        self.pins = [0] * pages
        self.contexts: list[ModelContext | None] = [None] * contexts
        self.cursor = 0
        self.wire_in: deque[bytes] = deque()
        self.wire_out: list[bytes] = []
        self.wire_drops = {"rx_drop_filter": 0, "rx_drop_invalid": 0}
        # Addresses behind the contexts that may send foreign ones: whose, and whether on the wire by now.
        self.learned: dict[bytes, tuple[ModelContext, bool]] = {}
        self.vectors: list[set[int]] = []
        self.irq_frames = irq_frames
        self.refused = (0, 0)
        self.events_of_nobody: Counter[int] = Counter()
        self._unmapped: list[tuple[int, int]] = []  # runs before the page that was not mapped

    # --- guests and contexts --------------------------------------------------------------------------------

    def create_guest(self, domain: int, pages: int) -> int | None:
        """The first of `pages` free pages in a row; None where there are none."""
        run = 0
        for page, owner in enumerate(self.owner):
            run = run + 1 if owner == FREE else 0
            if run == pages:
                first = page + 1 - pages
                self.memory[first * PAGE : (first + pages) * PAGE] = bytes(pages * PAGE)
                self.owner[first : first + pages] = [domain] * pages
                return first
        return None

    def release_pages(self, domain: int) -> None:
        for page, owner in enumerate(self.owner):
            if owner == domain:
                assert self.pins[page] == 0, f"page {page} of a destroyed guest is pinned"
                self.owner[page] = FREE

    def assign(self, context: ModelContext, direct_map: range | None = None) -> None:
        self.contexts[context.index] = context
        self.learned.pop(context.mac, None)
        for i, page in enumerate(direct_map or ()):
            if self.owner[page] == context.domain:
                context.io_table[i] = page
                self.pins[page] += 1

    def revoke(self, index: int) -> None:
        context = self.contexts[index]
        assert context is not None
        self.contexts[index] = None
        self.learned = {mac: entry for mac, entry in self.learned.items() if entry[0] is not context}
        if context.protection == VALIDATED:
            for ring in context.rings.values():
                self.reap_ring(ring, ring.enqueued)
        for page in [*context.io_table.values(), *context.limbo]:
            self.pins[page] -= 1
        self.events_of_nobody[index] = 0

    # --- hypercalls -----------------------------------------------------------------------------------------

    def refuse(self, reason: Refusal, index: int, page: int) -> int:
        self.refused = (index, page)
        return index if index else int(reason)

    def owned(self, domain: int, index: int) -> ModelContext | None:
        context = self.contexts[index] if index < len(self.contexts) else None
        if context is None or context.domain != domain or context.state != RUNNING:
            return None
        return context

    @staticmethod
    def pages_of(addr: int, length: int) -> range:
        return range(addr // PAGE, (addr + length - 1) // PAGE + 1)

    def reap_ring(self, ring: ModelRing, upto: int) -> None:
        for index in range(ring.reaped, upto):
            addr, length, _, _ = ring.slots[index % ring.size]
            for page in self.pages_of(addr, length):
                self.pins[page] -= 1
        ring.reaped = upto

    def reap_limbo(self, context: ModelContext) -> None:
        for page in context.limbo:
            self.pins[page] -= 1
        context.limbo.clear()

    def reap(self, context: ModelContext) -> None:
        if context.protection == VALIDATED:
            for ring in context.rings.values():
                self.reap_ring(ring, ring.consumer)
        self.reap_limbo(context)

    def enqueue(self, domain: int, index: int, which: int, requests: list[tuple[int, int, int]]) -> int:
        context = self.owned(domain, index)
        if context is None or which not in (TX, RX):
            return self.refuse(Refusal.REFUSED_CONTEXT, 0, 0)
        if context.protection != VALIDATED:
            return self.refuse(Refusal.REFUSED_MODE, 0, 0)
        ring = context.rings[Ring(which)]
        self.reap_ring(ring, ring.consumer)
        for i, (addr, length, flags) in enumerate(requests):
            if ring.enqueued - ring.consumer == ring.size:
                return self.refuse(Refusal.REFUSED_RING_FULL, i, 0)
            if flags & ~EOP:
                return self.refuse(Refusal.REFUSED_FLAGS, i, 0)
            if length == 0:
                return self.refuse(Refusal.REFUSED_LENGTH, i, 0)
            if addr + length > len(self.memory):
                return self.refuse(Refusal.REFUSED_ADDRESS, i, (addr // PAGE) & WORD)
            for page in self.pages_of(addr, length):
                if self.owner[page] != domain:
                    return self.refuse(Refusal.REFUSED_OWNER, i, page)
            for page in self.pages_of(addr, length):
                self.pins[page] += 1
            ring.slots[ring.enqueued % ring.size] = (addr, length, flags, ring.seq(ring.enqueued))
            ring.enqueued += 1
        return len(requests)

    def iommu_map(self, domain: int, index: int, io_pages: list[int], pages: list[int]) -> int:
        context = self.owned(domain, index)
        if context is None:
            return self.refuse(Refusal.REFUSED_CONTEXT, 0, 0)
        if context.protection != IOMMU:
            return self.refuse(Refusal.REFUSED_MODE, 0, 0)
        self.reap_limbo(context)
        for i, (at, page) in enumerate(zip(io_pages, pages, strict=True)):
            if at >= context.io_pages or page >= len(self.owner):
                return self.refuse(Refusal.REFUSED_ADDRESS, i, page)
            if self.owner[page] != domain:
                return self.refuse(Refusal.REFUSED_OWNER, i, page)
            if at in context.io_table:
                return self.refuse(Refusal.REFUSED_MAPPED, i, page)
            self.pins[page] += 1
            context.io_table[at] = page
        return len(pages)

    def iommu_unmap(self, domain: int, index: int, io_pages: list[int]) -> int:
        context = self.owned(domain, index)
        if context is None:
            return self.refuse(Refusal.REFUSED_CONTEXT, 0, 0)
        if context.protection != IOMMU:
            return self.refuse(Refusal.REFUSED_MODE, 0, 0)
        self.reap_limbo(context)
        for i, at in enumerate(io_pages):
            if at not in context.io_table:
                return self.refuse(Refusal.REFUSED_MAPPED, i, at)
            context.limbo.append(context.io_table.pop(at))
        return len(io_pages)

    def transfer(self, domain: int, to: int, pages: list[int]) -> int:
        for context in self.contexts:
            if context is not None and context.domain == domain:
                self.reap(context)
        for i, page in enumerate(pages):
            reason = None
            if page >= len(self.owner):
                reason = Refusal.REFUSED_ADDRESS
            elif self.owner[page] != domain:
                reason = Refusal.REFUSED_OWNER
            elif self.pins[page]:
                reason = Refusal.REFUSED_PINNED
            if reason is not None:
                self.refused = (i, page)
                return int(reason)
        for page in pages:
            self.owner[page] = to
        return len(pages)

    def handle_interrupts(self) -> int:
        vectors, self.vectors = self.vectors, []
        for vector in vectors:
            for index in vector:
                context = self.contexts[index]
                if context is None:
                    self.events_of_nobody[index] += 1
                else:
                    context.events += 1
        return len(vectors)

    # --- what a guest writes --------------------------------------------------------------------------------

    def ring_doorbell(self, index: int, mailbox: int, value: int) -> None:
        context = self.contexts[index]
        assert context is not None
        context.mailbox[mailbox] = value & WORD
        context.doorbell |= 1 << mailbox

    # --- the NIC --------------------------------------------------------------------------------------------

    def poll(self, budget: int) -> int:
        """One round."""
        for context in self.contexts:
            if context is not None and context.doorbell:
                self.take_doorbell(context)
        moved = self.transmit(budget)
        moved += self.receive(budget)
        self.interrupts()
        return moved

    def stop(
        self, context: ModelContext, fault: Fault, ring: Ring, index: int, expected: int, found: int
    ) -> None:
        context.state = FAULTED
        context.fault = (int(fault), int(ring), index & WORD, expected & WORD, found & WORD)
        context.stats["faults"] += 1
        context.active = False
        context.dirty = context.enabled = True

    def stop_at(self, context: ModelContext, ring: Ring, why: Stop) -> None:
        index = context.rings[ring].consumer + why.offset
        expected = context.rings[ring].seq(index) if why.fault == Fault.FAULT_SEQUENCE else 0
        self.stop(context, why.fault, ring, index, expected, why.found)

    def take_doorbell(self, context: ModelContext) -> None:
        rung, context.doorbell = context.doorbell, 0
        if context.state != RUNNING:
            return
        context.stats["doorbells"] += 1
        if rung & 1 << Mailbox.MAILBOX_INTERRUPT_ENABLE:
            context.enabled = context.mailbox[Mailbox.MAILBOX_INTERRUPT_ENABLE] != 0
        for which, mailbox in ((RX, Mailbox.MAILBOX_RX_PRODUCER), (TX, Mailbox.MAILBOX_TX_PRODUCER)):
            if rung & 1 << mailbox and context.state == RUNNING:
                ring, producer = context.rings[which], context.mailbox[mailbox]
                ahead = (producer - ring.consumer) & WORD
                if ahead > ring.size or ahead < ring.posted:
                    limit = ring.consumer + ring.size
                    self.stop(context, Fault.FAULT_PRODUCER, which, producer, limit, producer)
                    return
                ring.producer = ring.consumer + ahead
                if which == TX and ring.posted:
                    context.active = True

    def translate(self, context: ModelContext, addr: int, length: int, offset: int) -> list[tuple[int, int]]:
        """The runs (machine address, length) of a buffer, as far as it is mapped; then Stop."""
        if context.protection != IOMMU:
            if addr + length > len(self.memory):
                raise Stop(Fault.FAULT_ADDRESS, offset, addr // PAGE)
            return [(addr, length)]
        runs: list[tuple[int, int]] = []
        while length:
            n = min(length, PAGE - addr % PAGE)
            if addr // PAGE not in context.io_table:
                self._unmapped = runs
                raise Stop(Fault.FAULT_TRANSLATION, offset, addr // PAGE)
            runs.append((context.io_table[addr // PAGE] * PAGE + addr % PAGE, n))
            addr, length = addr + n, length - n
        return runs

    def read(self, context: ModelContext, addr: int, length: int, offset: int) -> bytes:
        return b"".join(self.memory[at : at + n] for at, n in self.translate(context, addr, length, offset))

    def next_frame(self, context: ModelContext) -> tuple[bytes, int] | None:
        """The next whole frame to send and its descriptors; None where its end is not posted yet."""
        ring, frame = context.rings[TX], b""
        for offset in range(min(ring.posted, Limits.MAX_FRAGMENTS)):
            addr, length, flags, seq = ring.at(offset)
            if context.protection == VALIDATED and seq != ring.seq(ring.consumer + offset):
                raise Stop(Fault.FAULT_SEQUENCE, offset, seq)
            if flags & ~EOP:
                raise Stop(Fault.FAULT_FLAGS, offset, flags)
            whole = len(frame) + length
            alone = offset == 0 and flags & EOP  # its length is judged before its address
            if length == 0 or whole > Limits.MAX_FRAME or (alone and whole < Limits.MIN_FRAME):
                raise Stop(Fault.FAULT_LENGTH, offset, length)
            try:
                frame += self.read(context, addr, length, offset)
            except Stop as why:
                raise Stop(why.fault, offset, addr // PAGE) from None
            if flags & EOP and whole < Limits.MIN_FRAME:
                raise Stop(Fault.FAULT_LENGTH, offset, length)
            if flags & EOP:
                return frame, offset + 1
        if ring.posted >= min(Limits.MAX_FRAGMENTS, ring.size):
            raise Stop(Fault.FAULT_FRAGMENTS, ring.posted, ring.posted)
        return None

    def transmit(self, budget: int) -> int:
        """One turn each, from the one whose turn it is; a turn cut short by the budget goes on next time."""
        moved, n = 0, len(self.contexts)
        for index in [*range(self.cursor, n), *range(self.cursor)]:
            context = self.contexts[index]
            if context is None or not context.active:
                continue
            moved += self.turn(context, budget - moved)
            if moved == budget:
                self.cursor = index if context.deficit > 0 else (index + 1) % n
                return moved
        waiting = [c.index for c in self.contexts if c is not None and c.active and c.index >= self.cursor]
        self.cursor = min(waiting, default=0)
        return moved

    def turn(self, context: ModelContext, budget: int) -> int:
        sent = 0
        if context.deficit <= 0:
            context.deficit += QUANTUM
        while sent < budget and context.deficit > 0 and context.rings[TX].posted:
            try:
                frame = self.next_frame(context)
            except Stop as why:
                self.stop_at(context, TX, why)
                break
            if frame is None:
                context.active = False
                break
            data, used = frame
            self.send(context, data)
            context.stats["tx_frames"] += 1
            context.stats["tx_bytes"] += len(data)
            context.deficit -= len(data)
            if context.state != RUNNING:  # stopped as the receiver of its own frame
                break
            context.rings[TX].consumer += used
            context.dirty = True
            sent += 1
        if context.state != RUNNING or not context.rings[TX].posted:
            context.active = False
            context.deficit = 0
        return sent

    @staticmethod
    def vlan(frame: bytes) -> int | None:
        """The VLAN id of the frame's tag, a provider's from 4096 on; None where it has no tag."""
        if frame[12:14] not in TAGS:
            return None
        provider = 0 if frame[12:14] == TAGS[0] else 0x1000
        return int.from_bytes(frame[14:16].ljust(2, b"\0"), "big") & 0xFFF | provider

    def send(self, context: ModelContext, frame: bytes) -> None:
        if context.anti_spoof and (frame[6:12] != context.mac or frame[12:14] == b"\x88\x08"):
            context.stats["tx_drop_spoof"] += 1
            return
        vlan = self.vlan(frame)
        if vlan is not None and (vlan != 0 or len(frame) < 18):
            context.stats["tx_drop_vlan"] += 1
            return
        if not context.anti_spoof:
            self.learn(context, frame[6:12])
        group = frame[0] & 1
        if group and context.storm is not None:
            if context.storm == 0:
                context.stats["tx_drop_storm"] += 1
                return
            context.storm -= 1
        to_wire = group or self.receiver(frame[:6]) is None
        delivered, matched = 0, False
        if self.floods(context, frame, bool(to_wire)):
            delivered, matched = self.deliver_local(frame, context)
        if to_wire:
            self.wire_out.append(frame)
        else:
            context.stats["tx_local"] += delivered > 0
            context.stats["tx_drop_filter"] += not matched

    def floods(self, context: ModelContext, frame: bytes, to_wire: bool) -> bool:
        """Whether others than the wire get a frame; one to an unknown destination is in the flood limit."""
        promiscuous = any(other.promiscuous for other in self.contexts if other is not None)
        if frame[0] & 1 or not to_wire or not promiscuous or context.flood is None:
            return True
        if context.flood == 0:
            context.stats["tx_unflooded"] += 1
            return False
        context.flood -= 1
        return True

    def find(self, mac: bytes) -> ModelContext | None:
        return next((c for c in self.contexts if c is not None and c.mac == mac), None)

    def learn(self, context: ModelContext, mac: bytes) -> None:
        """A foreign source address is behind this context, unless another place showed it just now."""
        if mac == context.mac:
            return
        known, on_wire = self.learned.get(mac, (context, False))
        elsewhere = known is not context or on_wire or self.find(mac) is not None
        if elsewhere or mac[0] & 1 or not any(mac):
            context.stats["tx_unlearned"] += 1
        else:
            self.learned[mac] = (context, False)

    def receiver(self, mac: bytes) -> ModelContext | None:
        """The context that has an address, or behind which it was learned."""
        context, on_wire = self.learned.get(mac, (None, False))
        return self.find(mac) or (None if on_wire else context)

    def deliver_local(self, frame: bytes, sender: ModelContext | None) -> tuple[int, bool]:
        """Deliveries, and whether anybody wants the frame."""
        if self.vlan(frame) not in (None, 0):
            return 0, False
        group = frame[0] & 1
        wanting = []
        target = None if group else self.receiver(frame[:6])
        if target is not None and target is sender and target.mac != frame[:6]:
            target = None  # learned behind its sender
        if target is not None:
            wanting.append(target)
        for context in self.contexts:
            if context is None or context.state != RUNNING or context in (sender, target):
                continue
            if context.promiscuous or (group and (frame[:6] == BROADCAST or context.all_multicast)):
                wanting.append(context)
        if target is not None and target.promiscuous and target is not sender and target.state == RUNNING:
            wanting.sort(key=lambda context: context.index)  # it gets the frame as one of the promiscuous
        return sum([self.deliver(context, frame) for context in wanting]), bool(wanting)

    def deliver(self, context: ModelContext, frame: bytes) -> bool:
        if context.state != RUNNING:
            context.stats["rx_drop_stopped"] += 1
            return False
        try:
            return self.scatter(context, frame)
        except Stop as why:
            self.stop_at(context, RX, why)
            return False

    def scatter(self, context: ModelContext, frame: bytes) -> bool:
        ring, room, used = context.rings[RX], 0, 0
        while room < len(frame):  # nothing is written before it is known to fit
            if used == ring.posted:
                context.stats["rx_drop_no_buffer"] += 1
                return False
            _, length, flags, seq = ring.at(used)
            if context.protection == VALIDATED and seq != ring.seq(ring.consumer + used):
                raise Stop(Fault.FAULT_SEQUENCE, used, seq)
            if length == 0:
                raise Stop(Fault.FAULT_LENGTH, used, length)
            if flags & ~EOP:
                raise Stop(Fault.FAULT_FLAGS, used, flags)
            room += length
            used += 1
        left = frame
        for offset in range(used):
            addr, length, _, _ = ring.at(offset)
            part, left = left[:length], left[length:]
            self.store(context, addr, part, offset)
            flags = 0 if left else CompletionFlag.COMPLETION_F_EOP
            ring.completions[(ring.consumer + offset) % ring.size] = (len(part), int(flags))
        ring.consumer += used
        context.stats["rx_frames"] += 1
        context.stats["rx_bytes"] += len(frame)
        context.dirty = True
        return True

    def store(self, context: ModelContext, addr: int, data: bytes, offset: int) -> None:
        """DMA into a buffer, page by page; what lies before an unmapped page is written."""
        try:
            runs = self.translate(context, addr, len(data), offset)
        except Stop as why:
            if why.fault == Fault.FAULT_TRANSLATION:
                self.store_runs(self._unmapped, data)
            raise Stop(why.fault, offset, addr // PAGE) from None
        self.store_runs(runs, data)

    def store_runs(self, runs: list[tuple[int, int]], data: bytes) -> None:
        for at, n in runs:
            self.memory[at : at + n] = data[:n]
            data = data[n:]

    def receive(self, budget: int) -> int:
        n = min(budget, BURST, len(self.wire_in))
        for _ in range(n):
            frame = self.wire_in.popleft()
            tagged = self.vlan(frame) is not None
            if len(frame) < (18 if tagged else Limits.MIN_FRAME):
                self.wire_drops["rx_drop_invalid"] += 1
                continue
            own = self.find(frame[6:12]) if self.vlan(frame) in (None, 0) else None
            if own is not None and (frame[0] & 1 or frame[:6] == frame[6:12]):
                own.stats["rx_own_source"] += 1
            if frame[6:12] in self.learned and self.vlan(frame) in (None, 0):
                self.learned[frame[6:12]] = (self.learned[frame[6:12]][0], True)
            if not self.deliver_local(frame, None)[1]:
                self.wire_drops["rx_drop_filter"] += 1
        return n

    def interrupts(self) -> None:
        for context in self.contexts:
            if context is not None and context.dirty:
                context.dirty = False
                context.published = {which: ring.consumer for which, ring in context.rings.items()}
                completed = sum(context.published.values())
                if completed - context.reported >= self.irq_frames or context.state != RUNNING:
                    context.reported = completed
                    context.updated = True
        vector = {c.index for c in self.contexts if c is not None and c.updated and c.enabled}
        if vector and len(self.vectors) < VECTORS:
            self.vectors.append(vector)
            for index in vector:
                context = self.contexts[index]
                assert context is not None
                context.updated = False
                context.stats["interrupts"] += 1
