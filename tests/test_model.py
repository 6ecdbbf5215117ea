"""The engine and the VMM against the reference model, on the same random schedules, hostile ones too."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cdna.abi import ContextState, DescFlag, Mailbox, Protection, Ring
from cdna.errors import Refused, ResourceError
from cdna.machine import Machine
from cdna.nic.queue_wire import QueueWire
from tests.support.hostile import EOP, PRODUCER, RX, TX, Desc, Hostile
from tests.support.model import BROADCAST, PAGE, WORD, Model, ModelContext, ModelRing

PAGES = 40
CONTEXTS = 4
RING = 8
SEQ_MODULUS = 16  # so that numbers wrap, as the ring does
WIRE_MAC = bytes.fromhex("02ffffffff01")
MULTICAST = bytes.fromhex("01005e000001")
TAGS = {"none": b"", "vlan": b"\x81\x00\x00\x05\x08\x00", "priority": b"\x81\x00\x20\x00\x08\x00"}

# Frames are sent from and received into different pages: of four, the first two and the last two. What a
# copy between overlapping buffers leaves behind is nobody's promise.
ZONE = {TX: (0, 1), RX: (2, 3)}

guests = st.integers(0, 3)
budgets = st.sampled_from([1, 2, 3, 5, 64])
sizes = st.one_of(st.integers(14, 130), st.sampled_from([14, 17, 18, 60, 1514, 4000]))
flags_ = st.sampled_from([0, 0, EOP, EOP, EOP, 4, EOP | DescFlag.DESC_F_OFFLOAD, 0x8000])


def mac_of(context: int) -> bytes:
    return bytes([0x02, 0xCD, 0x0A, 0, 0, context])


class Pair:
    """A guest of the machine and what the test knows of it."""

    def __init__(self, hostile: Hostile) -> None:
        self.hostile = hostile
        self.domain = hostile.guest.domain
        self.index = hostile.context.index
        self.mode = hostile.context.settings.mode

    def zone_pages(self, ring: Ring) -> list[int]:
        """The guest's page numbers that this ring may use, its own and machine-wide agreed."""
        first = self.hostile.guest.first_page
        return [p for p in range(self.hostile.guest.pages) if (first + p) % 4 in ZONE[ring]]

    def addr(self, page: int, offset: int) -> int:
        """What a descriptor says for a byte of the guest: an I/O address or a machine address."""
        at = page * PAGE + offset
        return at if self.mode == Protection.PROTECTION_IOMMU else self.hostile.guest.maddr + at


class EngineAgainstModel(RuleBasedStateMachine):
    @initialize(irq_frames=st.sampled_from([1, 4]), third=st.sampled_from(["none", "iommu:direct-map"]))
    def start(self, irq_frames: int, third: str) -> None:
        self.wire = QueueWire(256)
        self.machine = Machine(
            PAGES * PAGE,
            wire=self.wire,
            contexts=CONTEXTS,
            max_ring=RING,
            interrupt_frames=irq_frames,
            interrupt_us=4e9,  # an hour: never by time
        )
        self.model = Model(PAGES, CONTEXTS, irq_frames)
        self.pairs: list[Pair] = []
        self.sent = 0
        self.made = 0
        self.all_memory = self.machine.memory.view(0, PAGES * PAGE)
        for protection in ("validated", "validated", third):
            self.new_guest(protection, 8, (True, False, False))

    def teardown(self) -> None:
        if hasattr(self, "machine"):
            self.check()
            for pair in list(self.pairs):
                self.destroy(pair)
            assert not self.machine.memory.pins().any()
            assert self.machine.memory.free_pages == PAGES
            self.machine.close()

    # --- guests and contexts --------------------------------------------------------------------------------

    def new_guest(self, protection: str, pages: int, options: tuple[bool, bool, bool]) -> None:
        names = dict(zip(("anti_spoof", "promiscuous", "all_multicast"), options, strict=True))
        self.made += 1
        free = self.model.contexts.count(None)
        try:
            hostile = Hostile(
                self.machine,
                f"guest{self.made}",
                pages=pages,
                protection=protection,
                tx_ring=RING,
                rx_ring=RING,
                seq_modulus=SEQ_MODULUS,
                **names,
            )
        except ResourceError:  # no memory in a row; there is always a context, see the precondition
            assert free
            assert self.model.create_guest(0, pages) is None
            return
        pair = Pair(hostile)
        first = self.model.create_guest(pair.domain, pages)
        assert first == hostile.guest.first_page
        self.add_context(pair, names)
        self.pairs.append(pair)

    def add_context(self, pair: Pair, options: dict[str, bool]) -> None:
        guest = pair.hostile.guest
        iommu = pair.mode == Protection.PROTECTION_IOMMU
        context = ModelContext(
            pair.index,
            pair.domain,
            mac_of(pair.index),
            pair.mode,
            {ring: ModelRing(RING, SEQ_MODULUS) for ring in (TX, RX)},
            io_pages=guest.pages + 2 * RING * 4 if iommu else 0,
            **options,
        )
        self.model.assign(context, range(guest.first_page, guest.first_page + guest.pages) if iommu else None)

    @precondition(lambda self: None in self.model.contexts)
    @rule(
        protection=st.sampled_from(["validated", "validated", "none", "iommu:direct-map"]),
        pages=st.integers(3, 10),
        options=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    )
    def create(self, protection: str, pages: int, options: tuple[bool, bool, bool]) -> None:
        self.new_guest(protection, pages, options)

    def pick(self, i: int) -> Pair | None:
        return self.pairs[i % len(self.pairs)] if self.pairs else None

    def destroy(self, pair: Pair) -> None:
        self.machine.vmm.destroy_guest(pair.hostile.guest)
        self.model.revoke(pair.index)
        self.model.release_pages(pair.domain)
        self.pairs.remove(pair)

    @precondition(lambda self: len(self.pairs) > 1)
    @rule(i=guests)
    def destroy_guest(self, i: int) -> None:
        self.destroy(self.pick(i))

    @rule(i=guests)
    def reassign(self, i: int) -> None:
        """Takes a context away, whatever is outstanding, and gives it to the same guest anew."""
        if pair := self.pick(i):
            self.renew(pair)

    def renew(self, pair: Pair) -> None:
        hostile, old = pair.hostile, self.model.contexts[pair.index]
        self.machine.vmm.revoke(hostile.context)
        self.model.revoke(pair.index)
        hostile.context = self.machine.vmm.assign(hostile.guest, hostile.context.settings, index=pair.index)
        hostile.posted = {TX: 0, RX: 0}
        self.add_context(pair, {n: getattr(old, n) for n in ("anti_spoof", "promiscuous", "all_multicast")})

    # --- what a driver does ---------------------------------------------------------------------------------

    def room(self, pair: Pair, ring: Ring) -> int:
        return RING - (pair.hostile.posted[ring] - self.model.contexts[pair.index].published[ring])

    def post(self, pair: Pair, ring: Ring, requests: list[Desc]) -> None:
        """As `Hostile.post`, on both sides."""
        hostile, context = pair.hostile, self.model.contexts[pair.index]
        first = hostile.posted[ring]
        taken = hostile.post(ring, requests)
        if pair.mode == Protection.PROTECTION_VALIDATED:
            assert taken == self.model.enqueue(pair.domain, pair.index, ring, requests)
            self.check_refusal(taken, len(requests))
        else:
            for i, request in enumerate(requests):
                context.rings[ring].slots[(first + i) % RING] = (*request, i)
        if taken > 0:
            self.model.ring_doorbell(pair.index, PRODUCER[ring], first + taken)

    def check_refusal(self, status: int, wanted: int) -> None:
        if status != wanted:
            assert self.machine.vmm.tables.refused == self.model.refused

    @rule(
        i=guests,
        to=st.integers(0, CONTEXTS + 2),
        tag=st.sampled_from(["none", "none", "none", *TAGS]),
        size=sizes,
        parts=st.integers(1, 4),
        at=st.tuples(st.integers(0, 7), st.integers(0, PAGE - 1)),
        spoof=st.integers(0, 7),
    )
    def send(self, i: int, to: int, tag: str, size: int, parts: int, at: tuple[int, int], spoof: int) -> None:
        """Writes a frame and sends it, in one part or several, from anywhere in its pages."""
        if not (pair := self.pick(i)) or not (pages := pair.zone_pages(TX)):
            return
        frame = self.frame(to, mac_of(pair.index) if spoof else WIRE_MAC, tag, size)
        page = pages[at[0] % len(pages)]
        room = 2 * PAGE if page + 1 in pages else PAGE
        offset = min(at[1], room - size)
        if self.model.owner[pair.hostile.guest.first_page + page] == pair.domain:
            self.write(pair, frame, page, offset)
        step = max(1, size // parts)
        ends = [*range(step, size, step), size][-parts:]
        starts = [0, *ends[:-1]]
        self.post(
            pair,
            TX,
            [
                (pair.addr(page, offset + start), end - start, int(EOP) if end == size else 0)
                for start, end in zip(starts, ends, strict=True)
            ],
        )

    @rule(
        i=guests,
        to=st.integers(0, CONTEXTS + 2),
        n=st.integers(1, 40),
        size=sizes,
        parts=st.integers(1, 3),
        buffer=st.sampled_from([64, 1000, 2048]),
        budget=budgets,
        rest=st.integers(1, 4),
    )
    def traffic(
        self, i: int, to: int, n: int, size: int, parts: int, buffer: int, budget: int, rest: int
    ) -> None:
        """Sends one frame after the other to a guest that posts its buffers again; the rings wrap."""
        pair = self.pick(i)
        target = next((other for other in self.pairs if other.index == to), pair)
        for one in {pair, target} - {None}:
            if self.model.contexts[one.index].state != ContextState.CONTEXT_RUNNING:
                self.renew(one)
        for k in range(n if pair else 0):
            if self.room(target, RX) > 0:
                self.post_buffers(self.pairs.index(target), 2, k, 100 * k, buffer)
            if self.room(pair, TX) >= parts:
                self.send(self.pairs.index(pair), to, "none", size, parts, (k, 100 * k), 1)
            if k % rest == 0:
                self.nic_runs(1, budget)

    def frame(self, to: int, source: bytes, tag: str, size: int) -> bytes:
        destination = [*map(mac_of, range(CONTEXTS)), WIRE_MAC, BROADCAST, MULTICAST][to]
        self.sent += 1
        head = destination + source + TAGS[tag]
        return (head + self.sent.to_bytes(4, "big") * (size // 4))[:size].ljust(size, b"\x55")

    def write(self, pair: Pair, data: bytes, page: int, offset: int) -> None:
        at = pair.hostile.write(data, page, offset)
        self.model.memory[at : at + len(data)] = data

    @rule(i=guests, n=st.integers(1, 4), page=st.integers(0, 7), offset=st.integers(0, 4000), size=sizes)
    def post_buffers(self, i: int, n: int, page: int, offset: int, size: int) -> None:
        if (pair := self.pick(i)) and (pages := pair.zone_pages(RX)):
            at = pages[page % len(pages)]
            room = 2 * PAGE if at + 1 in pages else PAGE
            addr = pair.addr(at, min(offset, room - size))
            self.post(pair, RX, [(addr, size, 0)] * min(n, max(1, self.room(pair, RX))))

    @rule(i=guests, on=st.booleans())
    def enable_interrupts(self, i: int, on: bool) -> None:
        self.doorbell(i, Mailbox.MAILBOX_INTERRUPT_ENABLE, on)

    # --- the world outside, and time ------------------------------------------------------------------------

    @rule(
        to=st.integers(0, CONTEXTS + 2), tag=st.sampled_from(["none", *TAGS]), size=sizes, n=st.integers(1, 3)
    )
    def wire_receives(self, to: int, tag: str, size: int, n: int) -> None:
        frames = [self.frame(to, WIRE_MAC, tag, size) for _ in range(n)]
        assert self.wire.put(frames) == n
        self.model.wire_in += frames

    @rule(rounds=st.integers(1, 3), budget=budgets)
    def nic_runs(self, rounds: int, budget: int) -> None:
        for _ in range(rounds):
            assert self.machine.nic.poll(1, budget) == self.model.poll(budget)
            self.check()

    @rule()
    def vmm_handles_interrupts(self) -> None:
        assert self.machine.vmm.handle_interrupts() == self.model.handle_interrupts()

    @rule(
        i=guests, j=guests, pages=st.lists(st.integers(0, 11), min_size=1, max_size=3), foreign=st.booleans()
    )
    def transfer(self, i: int, j: int, pages: list[int], foreign: bool) -> None:
        """Gives pages away; where `foreign`, the pages are not checked to be its own beforehand."""
        source, to = self.pick(i), self.pick(j)
        if source is None or to is None:
            return
        first = 0 if foreign else source.hostile.guest.first_page
        numbers = [first + page for page in pages]
        expected = self.model.transfer(source.domain, to.domain, numbers)
        if expected > 0:
            self.machine.vmm.transfer(numbers, source.hostile.guest, to.hostile.guest)
            return
        with pytest.raises(Refused) as refused:
            self.machine.vmm.transfer(numbers, source.hostile.guest, to.hostile.guest)
        assert refused.value.reason == expected
        assert (refused.value.index, refused.value.page) == self.model.refused

    # --- hostility ------------------------------------------------------------------------------------------

    @rule(
        i=guests,
        victim=st.integers(0, CONTEXTS),
        ring=st.sampled_from([TX, RX, 2]),
        page=st.integers(0, PAGES + 1),
        offset=st.sampled_from([0, 1, PAGE - 1]),
        length=st.sampled_from([0, 1, 60, PAGE, 2 * PAGE, 0xFFFF]),
        flags=flags_,
        good_first=st.integers(0, 2),
    )
    def enqueues_anything(
        self, i: int, victim: int, ring: int, page: int, offset: int, length: int, flags: int, good_first: int
    ) -> None:
        """Foreign pages, addresses outside memory, lengths of nothing, unknown flags, contexts of others."""
        if not (pair := self.pick(i)):
            return
        index = pair.index if victim == CONTEXTS else victim
        own = [
            (pair.hostile.maddr(p), 60, int(EOP)) for p in pair.zone_pages(Ring(ring % 2))[:1]
        ] * good_first
        requests = [*own, (page * PAGE + offset, length, int(flags))]
        if any(a // PAGE % 4 not in ZONE[Ring(ring % 2)] for a, n, _ in requests for a in (a, a + n - 1)):
            return  # see ZONE
        taken = pair.hostile.enqueue(ring, requests, context=index)
        assert taken == self.model.enqueue(pair.domain, index, ring, requests)
        self.check_refusal(taken, len(requests))
        if index == pair.index and taken > 0:
            pair.hostile.posted[Ring(ring)] += taken
            self.doorbell(i, PRODUCER[Ring(ring)], pair.hostile.posted[Ring(ring)])

    @rule(i=guests, mailbox=st.integers(0, 3), value=st.one_of(st.integers(0, WORD), st.integers(0, 40)))
    def doorbell(self, i: int, mailbox: int, value: int) -> None:
        if pair := self.pick(i):
            pair.hostile.ring_doorbell(mailbox, value)
            self.model.ring_doorbell(pair.index, mailbox, value)

    @rule(i=guests, ring=st.sampled_from([TX, RX]), ahead=st.integers(-2, RING + 2))
    def replays(self, i: int, ring: Ring, ahead: int) -> None:
        """Announces descriptors that it has not posted: what lies in the ring is from before."""
        if pair := self.pick(i):
            self.doorbell(i, PRODUCER[ring], pair.hostile.posted[ring] + ahead)

    @rule(
        i=guests,
        ring=st.sampled_from([TX, RX]),
        ahead=st.integers(-1, 3),
        rows=st.lists(
            st.tuples(st.integers(0, PAGES + 3), st.sampled_from([0, 10, 60, 60, 300]), flags_), min_size=1
        ),
        announced=st.booleans(),
    )
    def rewrites_its_ring(
        self, i: int, ring: Ring, ahead: int, rows: list[tuple[int, int, int]], announced: bool
    ) -> None:
        """In the modes iommu and none, where a guest writes its rings, at any time."""
        pair = self.pick(i)
        if pair is None or pair.mode == Protection.PROTECTION_VALIDATED:
            return
        first = pair.hostile.guest.first_page if pair.mode == Protection.PROTECTION_IOMMU else 0
        at = pair.hostile.posted[ring] + ahead
        for page, length, flags in rows:
            if (first + page) % 4 in ZONE[ring]:
                row = (page * PAGE, length, int(flags), 0)
                pair.hostile.ring(ring)[at % RING] = row
                self.model.contexts[pair.index].rings[ring].slots[at % RING] = row
                at += 1
        if announced:
            self.doorbell(i, PRODUCER[ring], at)
            pair.hostile.posted[ring] = max(at, pair.hostile.posted[ring])

    @rule(i=guests, n=st.integers(1, RING))
    def sends_no_end(self, i: int, n: int) -> None:
        """A frame whose last descriptor does not come, or comes later with the next frame."""
        if (pair := self.pick(i)) and (pages := pair.zone_pages(TX)):
            self.post(pair, TX, [(pair.addr(pages[0], 0), 20, 0)] * n)

    @rule(i=guests, io_pages=st.lists(st.integers(0, 20), min_size=1, max_size=3), move=st.integers(-2, 2))
    def maps(self, i: int, io_pages: list[int], move: int) -> None:
        if pair := self.pick(i):
            first = pair.hostile.guest.first_page
            pages = [first + io_page + 4 * move for io_page in io_pages]
            if min(pages) >= 0:
                done = pair.hostile.iommu_map(io_pages, pages)
                assert done == self.model.iommu_map(pair.domain, pair.index, io_pages, pages)
                self.check_refusal(done, len(pages))

    @rule(i=guests, io_pages=st.lists(st.integers(0, 20), min_size=1, max_size=3))
    def unmaps(self, i: int, io_pages: list[int]) -> None:
        if pair := self.pick(i):
            done = pair.hostile.iommu_unmap(io_pages)
            assert done == self.model.iommu_unmap(pair.domain, pair.index, io_pages)
            self.check_refusal(done, len(io_pages))

    # --- agreement ------------------------------------------------------------------------------------------

    @invariant()
    def check(self) -> None:
        if not hasattr(self, "model"):
            return
        machine, model = self.machine, self.model
        assert machine.memory.owners().tolist() == model.owner
        assert machine.memory.pins().tolist() == model.pins
        assert self.wire.get() == model.wire_out
        model.wire_out = []
        assert machine.nic.counters["rx_drop_filter"] == model.wire_drops
        for pair in self.pairs:
            self.check_context(pair, model.contexts[pair.index])
        assert self.all_memory.tobytes() == model.memory

    def check_context(self, pair: Pair, context: ModelContext) -> None:
        info = self.machine.nic.info(pair.index)
        assert info["state"] == context.state
        faults = tuple(
            info[name] for name in ("fault", "fault_ring", "fault_index", "fault_expected", "fault_found")
        )
        assert faults == context.fault
        stats = self.machine.nic.stats(pair.index)
        assert stats == {name: context.stats[name] for name in stats}
        page = pair.hostile.page
        for ring, name in ((TX, "tx"), (RX, "rx")):
            expected = context.rings[ring]
            assert info[name]["producer"] == expected.producer
            assert info[name]["consumer"] == expected.consumer
            assert info[name]["seq"] == expected.seq(expected.consumer)
            assert page[f"{name}_consumer"][0] == context.published[ring]
            assert pair.hostile.ring(ring).tolist() == expected.slots
        assert (page["state"][0], page["fault"][0]) == (context.state, context.fault[0])
        completions = pair.hostile.completions
        assert [*zip(completions["len"].tolist(), completions["flags"].tolist(), strict=True)] == (
            context.rings[RX].completions
        )
        assert self.machine.vmm.tables.events(pair.index) == context.events


TestEngineAgainstModel = pytest.mark.timeout(600)(EngineAgainstModel.TestCase)  # a failure is shrunk first
TestEngineAgainstModel.settings = settings(
    max_examples=300,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
