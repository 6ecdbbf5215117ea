"""Campaign "model": engine, VMM and reference model on the same random schedules, compared after each step.

`EngineAgainstModel` is the machine beside its model, and what may happen to both, by name: hypothesis draws
these steps in `tests/test_model.py`, and the campaign draws them from its seed.
"""

from __future__ import annotations

from random import Random
from typing import Any, cast

from cdna import abi
from cdna.abi import ContextState, DescFlag, Mailbox, Protection, Refusal, Ring
from cdna.errors import Refused, ResourceError
from cdna.fuzz.arguments import Either, OneOf, Several, Steps, Together, Whole
from cdna.fuzz.campaign import Breach, Case, Tally
from cdna.fuzz.model import BROADCAST, PAGE, WORD, Model, ModelContext, ModelRing
from cdna.fuzz.schedules import ScheduleCampaign
from cdna.guests.hostile import EOP, PRODUCER, RX, TX, Desc, Hostile
from cdna.machine import Machine
from cdna.nic.options import STORM_BURST
from cdna.nic.queue_wire import QueueWire
from cdna.settings import Settings

PAGES = 40
CONTEXTS = 4
RING = 8
SEQ_MODULUS = 16  # so that numbers wrap, as the ring does
WIRE_MAC = bytes.fromhex("02ffffffff01")
MULTICAST = bytes.fromhex("01005e000001")
TAGS = {
    "none": b"",
    "vlan": b"\x81\x00\x00\x05\x08\x00",
    "priority": b"\x81\x00\x20\x00\x08\x00",
    "provider": b"\x88\xa8\x00\x00\x08\x00",
    "old provider": b"\x91\x00\x00\x00\x08\x00",
}
HARDLY_ANY = 1e-3  # frames a second: none that a schedule would see
LENGTH = 50  # steps of a schedule

# Frames are sent from and received into different pages: of four, the first two and the last two. What a
# copy between overlapping buffers leaves behind is nobody's promise.
ZONE = {TX: (0, 1), RX: (2, 3)}

STEPS = Steps()
START = {"irq_frames": OneOf(1, 4), "third": OneOf("none", "iommu:direct-map")}
GUESTS = Whole(0, 3)
BUDGETS = OneOf(1, 2, 3, 5, 64)
SIZES = Either(Whole(14, 130), OneOf(14, 17, 18, 60, 1514, 4000))
FLAGS = OneOf(0, 0, *[int(EOP)] * 3, 4, int(EOP | DescFlag.DESC_F_OFFLOAD), 0x8000)
TO = Whole(0, CONTEXTS + 2)  # a frame's destination: see `EngineAgainstModel.frame`
RINGS = OneOf(int(TX), int(RX))
WHETHER = OneOf(False, True)


class Disagreement(AssertionError):
    """The engine or the VMM is in another state than the model."""


def same(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise Disagreement(f"{what} is {found!r:.300}, in the model {expected!r:.300}")


def mac_of(context: int) -> bytes:
    return bytes([0x02, 0xCD, 0x0A, 0, 0, context])


class Pair:
    """A guest of the machine and what is known of it."""

    def __init__(self, hostile: Hostile) -> None:
        self.hostile = hostile
        self.domain = hostile.guest.domain
        self.index = hostile.context.index
        self.mode = hostile.context.settings.mode

    def zone_pages(self, ring: int) -> list[int]:
        """The guest's page numbers that this ring may use, its own and machine-wide agreed."""
        first = self.hostile.guest.first_page
        return [p for p in range(self.hostile.guest.pages) if (first + p) % 4 in ZONE[Ring(ring)]]

    def addr(self, page: int, offset: int) -> int:
        """What a descriptor says for a byte of the guest: an I/O address or a machine address."""
        at = page * PAGE + offset
        return at if self.mode == Protection.PROTECTION_IOMMU else self.hostile.guest.maddr + at


class EngineAgainstModel:
    """The machine, its model, and the steps that both take. Disagreement: they are not the same any more."""

    def __init__(self, irq_frames: int, third: str) -> None:
        self.tally = Tally()
        self.wire = QueueWire(256)
        self.machine = Machine(
            PAGES * PAGE,
            wire=self.wire,
            contexts=CONTEXTS,
            max_ring=RING,
            interrupt_frames=irq_frames,
            interrupt_us=4e9,  # an hour: never by time
        )
        self.machine.nic.set_learning(age=1e6, hold=1e6)  # nor is an address ever forgotten
        self.model = Model(PAGES, CONTEXTS, irq_frames)
        self.pairs: list[Pair] = []
        self.sent = 0
        self.made = 0
        self.all_memory = self.machine.memory.view(0, PAGES * PAGE)
        for protection in ("validated", "validated", third):
            self.new_guest(protection, 8, [True, False, False])

    def do(self, step: list[Any]) -> None:
        """A step, and the comparison."""
        STEPS.do(self, step)
        self.tally.attempts += 1
        self.check()

    def finish(self) -> None:
        """The guests go; nothing of them is left."""
        self.check()
        for pair in list(self.pairs):
            self._destroy(pair)
        same("the number of pins at the end", int(self.machine.memory.pins().sum()), 0)
        same("the number of free pages at the end", self.machine.memory.free_pages, PAGES)

    def close(self) -> None:
        self.machine.close()

    # --- guests and contexts --------------------------------------------------------------------------------

    def new_guest(self, protection: str, pages: int, options: list[bool]) -> None:
        names = dict(zip(("anti_spoof", "promiscuous", "all_multicast"), options, strict=True))
        rings = {"tx_ring": RING, "rx_ring": RING, "seq_modulus": SEQ_MODULUS}
        settings = cast(Settings, {"protection": protection, **rings, **names})
        self.made += 1
        try:
            hostile = Hostile(self.machine, f"guest{self.made}", pages=pages, **settings)
        except ResourceError:  # no memory in a row
            same("the first page where there are none", None, self.model.create_guest(0, pages))
            return
        pair = Pair(hostile)
        same("the first page", hostile.guest.first_page, self.model.create_guest(pair.domain, pages))
        self.add_context(pair, names)
        self.pairs.append(pair)

    def add_context(self, pair: Pair, options: dict[str, Any]) -> None:
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

    @STEPS.step(
        protection=OneOf("validated", "validated", "none", "iommu:direct-map"),
        pages=Whole(3, 10),
        options=Together(WHETHER, WHETHER, WHETHER),
    )
    def create(self, protection: str, pages: int, options: list[bool]) -> None:
        if None in self.model.contexts:
            self.new_guest(protection, pages, options)

    def pick(self, i: int) -> Pair | None:
        return self.pairs[i % len(self.pairs)] if self.pairs else None

    def _context(self, pair: Pair) -> ModelContext:
        context = self.model.contexts[pair.index]
        if context is None:
            raise Disagreement(f"context {pair.index} is nobody's in the model")
        return context

    def _destroy(self, pair: Pair) -> None:
        self.machine.vmm.destroy_guest(pair.hostile.guest)
        self.model.revoke(pair.index)
        self.model.release_pages(pair.domain)
        self.pairs.remove(pair)

    @STEPS.step(i=GUESTS)
    def destroy_guest(self, i: int) -> None:
        if len(self.pairs) > 1 and (pair := self.pick(i)):
            self._destroy(pair)

    @STEPS.step(i=GUESTS)
    def reassign(self, i: int) -> None:
        """Takes a context away, whatever is outstanding, and gives it to the same guest anew."""
        if pair := self.pick(i):
            self.renew(pair)

    @STEPS.step(i=GUESTS, what=OneOf("storm", "flood"), on=WHETHER)
    def limits_frames(self, i: int, what: str, on: bool) -> None:
        """What a context floods is limited from now on, to what passes at once, or not any more."""
        if pair := self.pick(i):
            self.machine.nic.set_option(pair.index, what, HARDLY_ANY if on else 0)
            setattr(self._context(pair), what, STORM_BURST if on else None)

    def renew(self, pair: Pair) -> None:
        hostile, old = pair.hostile, self._context(pair)
        self.machine.vmm.revoke(hostile.context)
        self.model.revoke(pair.index)
        hostile.context = self.machine.vmm.assign(hostile.guest, hostile.context.settings, index=pair.index)
        hostile.posted = {TX: 0, RX: 0}
        self.add_context(pair, {n: getattr(old, n) for n in ("anti_spoof", "promiscuous", "all_multicast")})

    # --- what a driver does ---------------------------------------------------------------------------------

    def room(self, pair: Pair, ring: Ring) -> int:
        return RING - (pair.hostile.posted[ring] - self._context(pair).published[ring])

    def post(self, pair: Pair, ring: Ring, requests: list[Desc]) -> None:
        """As `Hostile.post`, on both sides."""
        hostile, context = pair.hostile, self._context(pair)
        first = hostile.posted[ring]
        taken = hostile.post(ring, requests)
        self.tally.descriptors += len(requests)
        if pair.mode == Protection.PROTECTION_VALIDATED:
            expected = self.model.enqueue(pair.domain, pair.index, ring, requests)
            self.check_status("enqueue", taken, expected, len(requests))
        else:
            for i, request in enumerate(requests):
                context.rings[ring].slots[(first + i) % RING] = (*request, i)
        if taken > 0:
            self.model.ring_doorbell(pair.index, PRODUCER[ring], first + taken)

    def check_status(self, what: str, status: int, expected: int, wanted: int) -> None:
        """What a hypercall returned; where not all was granted, also whom it blames."""
        same(f"the status of {what}", status, expected)
        if status != wanted:
            same(f"what {what} blames", self.machine.vmm.tables.refused, self.model.refused)
        if status < 0:
            self._count_refusal(status)

    def _count_refusal(self, status: int) -> None:
        name = Refusal(status).name
        self.tally.refusals[name] = self.tally.refusals.get(name, 0) + 1

    @STEPS.step(
        i=GUESTS,
        to=TO,
        tag=OneOf("none", "none", "none", *TAGS),
        size=SIZES,
        parts=Whole(1, 4),
        at=Together(Whole(0, 7), Whole(0, PAGE - 1)),
        spoof=Whole(0, 7),
    )
    def send(self, i: int, to: int, tag: str, size: int, parts: int, at: list[int], spoof: int) -> None:
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

    @STEPS.step(
        i=GUESTS,
        to=TO,
        n=Whole(1, 40),
        size=SIZES,
        parts=Whole(1, 3),
        buffer=OneOf(64, 1000, 2048),
        budget=BUDGETS,
        rest=Whole(1, 4),
    )
    def traffic(
        self, i: int, to: int, n: int, size: int, parts: int, buffer: int, budget: int, rest: int
    ) -> None:
        """Sends one frame after the other to a guest that posts its buffers again; the rings wrap."""
        pair = self.pick(i)
        if pair is None:
            return
        target = next((other for other in self.pairs if other.index == to), pair)
        for one in (pair, target):
            if self._context(one).state != ContextState.CONTEXT_RUNNING:
                self.renew(one)
        for k in range(n):
            if self.room(target, RX) > 0:
                self.post_buffers(self.pairs.index(target), 2, k, 100 * k, buffer)
            if self.room(pair, TX) >= parts:
                self.send(self.pairs.index(pair), to, "none", size, parts, [k, 100 * k], 1)
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

    @STEPS.step(i=GUESTS, n=Whole(1, 4), page=Whole(0, 7), offset=Whole(0, 4000), size=SIZES)
    def post_buffers(self, i: int, n: int, page: int, offset: int, size: int) -> None:
        if (pair := self.pick(i)) and (pages := pair.zone_pages(RX)):
            at = pages[page % len(pages)]
            room = 2 * PAGE if at + 1 in pages else PAGE
            addr = pair.addr(at, min(offset, room - size))
            self.post(pair, RX, [(addr, size, 0)] * min(n, max(1, self.room(pair, RX))))

    @STEPS.step(i=GUESTS, on=WHETHER)
    def enable_interrupts(self, i: int, on: bool) -> None:
        self.doorbell(i, Mailbox.MAILBOX_INTERRUPT_ENABLE, on)

    # --- the world outside, and time ------------------------------------------------------------------------

    @STEPS.step(to=TO, tag=OneOf("none", *TAGS), size=SIZES, n=Whole(1, 3))
    def wire_receives(self, to: int, tag: str, size: int, n: int) -> None:
        frames = [self.frame(to, WIRE_MAC, tag, size) for _ in range(n)]
        room = self.wire.depth - len(self.model.wire_in)  # many may wait, as steps of the NIC are a few
        same("the number of frames that the wire takes", self.wire.put(frames), min(n, room))
        self.model.wire_in += frames[:room]

    @STEPS.step(rounds=Whole(1, 3), budget=BUDGETS)
    def nic_runs(self, rounds: int, budget: int) -> None:
        for _ in range(rounds):
            same("the number of frames moved", self.machine.nic.poll(1, budget), self.model.poll(budget))
            self.check()

    @STEPS.step()
    def vmm_handles_interrupts(self) -> None:
        same("the number of vectors", self.machine.vmm.handle_interrupts(), self.model.handle_interrupts())

    @STEPS.step(i=GUESTS, j=GUESTS, pages=Several(Whole(0, 11), 1, 3), foreign=WHETHER)
    def transfer(self, i: int, j: int, pages: list[int], foreign: bool) -> None:
        """Gives pages away; where `foreign`, the pages are not checked to be its own beforehand."""
        source, to = self.pick(i), self.pick(j)
        if source is None or to is None:
            return
        first = 0 if foreign else source.hostile.guest.first_page
        numbers = [first + page for page in pages]
        expected = self.model.transfer(source.domain, to.domain, numbers)
        try:
            self.machine.vmm.transfer(numbers, source.hostile.guest, to.hostile.guest)
        except Refused as refused:
            same("the refusal of transfer", refused.reason, expected)
            same("what transfer blames", (refused.index, refused.page), self.model.refused)
            self._count_refusal(expected)
        else:
            same("the status of transfer", len(pages), expected)

    # --- hostility ------------------------------------------------------------------------------------------

    @STEPS.step(
        i=GUESTS,
        victim=Whole(0, CONTEXTS),
        ring=OneOf(int(TX), int(RX), 2),
        page=Whole(0, PAGES + 1),
        offset=OneOf(0, 1, PAGE - 1),
        length=OneOf(0, 1, 60, PAGE, 2 * PAGE, 0xFFFF),
        flags=FLAGS,
        good_first=Whole(0, 2),
    )
    def enqueues_anything(
        self, i: int, victim: int, ring: int, page: int, offset: int, length: int, flags: int, good_first: int
    ) -> None:
        """Foreign pages, addresses outside memory, lengths of nothing, unknown flags, contexts of others."""
        if not (pair := self.pick(i)):
            return
        index = pair.index if victim == CONTEXTS else victim
        own = [(pair.hostile.maddr(p), 60, int(EOP)) for p in pair.zone_pages(ring % 2)[:1]] * good_first
        requests = [*own, (page * PAGE + offset, length, flags)]
        if any(a // PAGE % 4 not in ZONE[Ring(ring % 2)] for a, n, _ in requests for a in (a, a + n - 1)):
            return  # see ZONE
        taken = pair.hostile.enqueue(ring, requests, context=index)
        self.tally.descriptors += len(requests)
        expected = self.model.enqueue(pair.domain, index, ring, requests)
        self.check_status("enqueue", taken, expected, len(requests))
        if index == pair.index and taken > 0:
            pair.hostile.posted[Ring(ring)] += taken
            self.doorbell(i, PRODUCER[Ring(ring)], pair.hostile.posted[Ring(ring)])

    @STEPS.step(i=GUESTS, mailbox=Whole(0, 3), value=Either(Whole(0, WORD), Whole(0, 40)))
    def doorbell(self, i: int, mailbox: int, value: int) -> None:
        if pair := self.pick(i):
            pair.hostile.ring_doorbell(mailbox, value)
            self.model.ring_doorbell(pair.index, mailbox, value)

    @STEPS.step(i=GUESTS, ring=RINGS, ahead=Whole(-2, RING + 2))
    def replays(self, i: int, ring: int, ahead: int) -> None:
        """Announces descriptors that it has not posted: what lies in the ring is from before."""
        if pair := self.pick(i):
            self.tally.descriptors += max(0, ahead)
            self.doorbell(i, PRODUCER[Ring(ring)], pair.hostile.posted[Ring(ring)] + ahead)

    @STEPS.step(
        i=GUESTS,
        ring=RINGS,
        ahead=Whole(-1, 3),
        rows=Several(Together(Whole(0, PAGES + 3), OneOf(0, 10, 60, 60, 300), FLAGS), 1, 8),
        announced=WHETHER,
    )
    def rewrites_its_ring(
        self, i: int, ring: int, ahead: int, rows: list[list[int]], announced: bool
    ) -> None:
        """In the modes iommu and none, where a guest writes its rings, at any time."""
        pair, which = self.pick(i), Ring(ring)
        if pair is None or pair.mode == Protection.PROTECTION_VALIDATED:
            return
        first = pair.hostile.guest.first_page if pair.mode == Protection.PROTECTION_IOMMU else 0
        at = pair.hostile.posted[which] + ahead
        for page, length, flags in rows:
            if (first + page) % 4 in ZONE[which]:
                row = (page * PAGE, length, flags, 0)
                pair.hostile.ring(which)[at % RING] = row
                self._context(pair).rings[which].slots[at % RING] = row
                self.tally.descriptors += 1
                at += 1
        if announced:
            self.doorbell(i, PRODUCER[which], at)
            pair.hostile.posted[which] = max(at, pair.hostile.posted[which])

    @STEPS.step(i=GUESTS, n=Whole(1, RING))
    def sends_no_end(self, i: int, n: int) -> None:
        """A frame whose last descriptor does not come, or comes later with the next frame."""
        if (pair := self.pick(i)) and (pages := pair.zone_pages(TX)):
            self.post(pair, TX, [(pair.addr(pages[0], 0), 20, 0)] * n)

    @STEPS.step(i=GUESTS, io_pages=Several(Whole(0, 20), 1, 3), move=Whole(-2, 2))
    def maps(self, i: int, io_pages: list[int], move: int) -> None:
        if pair := self.pick(i):
            first = pair.hostile.guest.first_page
            pages = [first + io_page + 4 * move for io_page in io_pages]
            if min(pages) >= 0:
                done = pair.hostile.iommu_map(io_pages, pages)
                expected = self.model.iommu_map(pair.domain, pair.index, io_pages, pages)
                self.check_status("iommu_map", done, expected, len(pages))

    @STEPS.step(i=GUESTS, io_pages=Several(Whole(0, 20), 1, 3))
    def unmaps(self, i: int, io_pages: list[int]) -> None:
        if pair := self.pick(i):
            done = pair.hostile.iommu_unmap(io_pages)
            expected = self.model.iommu_unmap(pair.domain, pair.index, io_pages)
            self.check_status("iommu_unmap", done, expected, len(io_pages))

    # --- agreement ------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Compares all that there is to see. Disagreement."""
        machine, model = self.machine, self.model
        same("the owners of the pages", machine.memory.owners().tolist(), model.owner)
        same("the pins of the pages", machine.memory.pins().tolist(), model.pins)
        same("what went out by the wire", self.wire.get(), model.wire_out)
        model.wire_out = []
        for name, dropped in model.wire_drops.items():
            same(f"{name} of the NIC", machine.nic.counters[name], dropped)
        for pair in self.pairs:
            self.check_context(pair, self._context(pair))
        if self.all_memory.tobytes() != model.memory:
            pages = [p for p in range(PAGES) if self._page(p) != model.memory[p * PAGE : (p + 1) * PAGE]]
            raise Disagreement(f"the bytes of pages {pages} are not the model's")

    def _page(self, page: int) -> bytes:
        return self.all_memory[page * PAGE : (page + 1) * PAGE].tobytes()

    def check_context(self, pair: Pair, context: ModelContext) -> None:
        name = f"context {pair.index}"
        info = self.machine.nic.info(pair.index)
        same(f"the state of {name}", info["state"], context.state)
        fault = tuple(info[f"fault{part}"] for part in ("", "_ring", "_index", "_expected", "_found"))
        same(f"the fault of {name}", fault, context.fault)
        stats = self.machine.nic.stats(pair.index)
        same(f"the counters of {name}", stats, {counter: context.stats[counter] for counter in stats})
        page = pair.hostile.page
        for ring, prefix in ((TX, "tx"), (RX, "rx")):
            expected, found = context.rings[ring], info[prefix]
            same(
                f"(producer, consumer, sequence number, published) of the {prefix} ring of {name}",
                (found["producer"], found["consumer"], found["seq"], int(page[f"{prefix}_consumer"][0])),
                (
                    expected.producer,
                    expected.consumer,
                    expected.seq(expected.consumer),
                    context.published[ring],
                ),
            )
            same(f"the {prefix} ring of {name}", pair.hostile.ring(ring).tolist(), expected.slots)
        published = (int(page["state"][0]), int(page["fault"][0]))
        same(f"what the page of {name} says", published, (context.state, context.fault[0]))
        done = pair.hostile.completions
        completions = [*zip(done["len"].tolist(), done["flags"].tolist(), strict=True)]
        same(f"the completions of {name}", completions, context.rings[RX].completions)
        same(f"the events of {name}", self.machine.vmm.tables.events(pair.index), context.events)


class ModelCampaign(ScheduleCampaign):
    """Schedules of LENGTH steps, each in a machine of its own."""

    name = "model"

    @classmethod
    def expand(cls, case: Case) -> Case:
        random = Random(case["seed"])
        start = {key: spec.draw(random) for key, spec in START.items()}
        return {**case, "start": start, "steps": [STEPS.draw(random) for _ in range(LENGTH)]}

    def play(self, case: Case, tally: Tally) -> None:
        both, done = EngineAgainstModel(**case["start"]), 0
        faults = both.tally.faults
        try:
            for step in case["steps"]:
                both.do(step)
                done += 1
            for pair in both.pairs:
                reason = both.machine.nic.info(pair.index)["fault"]
                if reason:
                    name = abi.Fault(reason).name
                    faults[name] = faults.get(name, 0) + 1
            both.finish()
        except AssertionError as error:  # Disagreement, and what the model itself asserts
            steps = case["steps"]
            at = f"step {done}, {steps[done][0]}" if done < len(steps) else "the end"
            raise Breach("model", f"after {at}: {error}", {**case, "steps": steps[: done + 1]}) from None
        finally:
            both.close()
        tally.add(both.tally)
