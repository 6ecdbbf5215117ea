"""Who must not notice an attack: two honest neighbours who talk, and bystanders who only have memory.

Memory of a scene, in pages, from page 0 on:

    | alice + SPARE | bob + SPARE | taker | bystander | room for hostile guests | bystander |

A hostile guest may give pages away, to the taker. Its pages, the spare pages and the bystanders' hold a
secret, over and over: another byte in them was written out of bounds, and the secret in a frame or in a
hostile guest's memory was read out of bounds.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import numpy as np

from cdna import abi
from cdna.base.units import parse_mac
from cdna.fuzz.campaign import Tally
from cdna.guest_driver.queues import memory_needed
from cdna.machine import Machine
from cdna.nic.wire import Wire

PAGE = abi.PAGE_BYTES
SPARE = 16  # pages
BYSTANDER = 64  # pages, twice
TALK = 8  # frames each way
ETHERTYPE = b"\x88\xb5"  # IEEE 802, for local experiments
SIZES = (60, 61, 128, 590, 1514)
SWITCH = 0.0001  # seconds that a thread keeps the interpreter while another waits for it
PATIENCE = 20.0  # seconds for a frame to arrive, where the engine has a thread


class Harm(Exception):
    """An attack has had an effect on others: kind as of `Breach`, one line."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind, self.text = kind, text


class Party(Protocol):
    """An honest neighbour: a native driver, or one like it."""

    context: Any

    def send(self, frames: list[bytes]) -> int: ...
    def recv(self, most: int) -> list[bytes]: ...


class Mistakes(logging.Handler):
    """Keeps what the VMM logs of its own mistakes."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.texts.append(record.getMessage() + (f" ({type(error).__name__}: {error})" if error else ""))


class Scene:
    """A machine with these guests and `room` pages for hostile ones. The seed makes the secret.

    settings: of the two neighbours' contexts. The machine moves when it is told to, or by `machine.start`.
    """

    def __init__(self, seed: int, wire: Wire, *, room: int, contexts: int = 8, **settings: Any) -> None:
        random = Random(seed)
        self.secret = random.randbytes(8)
        self._token = random.randbytes(8)  # of honest frames; attackers do not know it
        self._random = random
        self._page = np.frombuffer(self.secret * (PAGE // 8), np.uint8)
        rings: dict[str, Any] = {"tx_ring": 64, "rx_ring": 1024, **settings}
        needed = -(-memory_needed(rings["tx_ring"], rings["rx_ring"], 2048) // PAGE)
        pages = 2 * (needed + SPARE) + 1 + 2 * BYSTANDER + room
        self.machine = machine = Machine(pages * PAGE, wire=wire, contexts=contexts)
        self.alice, self.bob = (
            machine.attach(name, memory=(needed + SPARE) * PAGE, **rings) for name in ("alice", "bob")
        )
        self.pairs: list[tuple[Party, Party]] = [(self.alice, self.bob), (self.bob, self.alice)]
        self.taker = machine.vmm.create_guest("taker", PAGE)
        before = machine.vmm.create_guest("before", BYSTANDER * PAGE)
        place = machine.vmm.create_guest("room", room * PAGE)
        behind = machine.vmm.create_guest("behind", BYSTANDER * PAGE)
        machine.vmm.destroy_guest(place)
        self._bystanders = {before.domain, behind.domain}
        self._sealed = np.zeros(pages, bool)  # the bystanders' pages that hold the secret
        self._spare = np.zeros(pages, bool)  # pages of the neighbours that their drivers do not use
        self._memory = machine.memory.view(0, pages * PAGE).reshape(pages, PAGE)
        for driver in (self.alice, self.bob):
            guest = driver.context.guest
            self._spare[guest.first_page + needed : guest.first_page + guest.pages] = True
        self._memory[self._spare] = self._page
        self.seal()
        self._sent = 0
        self._mistakes = Mistakes()
        logging.getLogger("cdna").addHandler(self._mistakes)
        self.baseline = self.held()

    def close(self) -> None:
        logging.getLogger("cdna").removeHandler(self._mistakes)
        self.machine.close()

    def take_back(self) -> None:
        """The pages that were given away are free again."""
        vmm = self.machine.vmm
        vmm.destroy_guest(self.taker)
        self.seal()
        self.taker = vmm.create_guest("taker", PAGE)
        self.seal()

    # --- memory ---------------------------------------------------------------------------------------------

    def seal(self) -> None:
        """Puts the secret into what was given away since the last call."""
        owners = self.machine.memory.owners()
        theirs = np.isin(owners, [*self._bystanders, self.taker.domain])
        self._memory[theirs & ~self._sealed] = self._page
        self._sealed = theirs

    def check(self, tally: Tally) -> None:
        """Harm "outside": a byte was written where no guest's DMA may; "error": a mistake of the VMM's."""
        if self._mistakes.texts:
            raise Harm("error", self._mistakes.texts[0])
        secret = np.flatnonzero(self._sealed | self._spare)
        wrong = (self._memory[secret] != self._page).sum(axis=1)
        if wrong.any():
            tally.outside += int(wrong.sum())
            where = secret[wrong > 0][:8].tolist()
            raise Harm("outside", f"{wrong.sum()} bytes of others were written, in pages {where}")

    def look_for_secret(self, what: str, *places: bytes) -> None:
        """Harm "outside": somebody's bytes have come to where they may not be."""
        for place in places:
            if self.secret in place:
                raise Harm("outside", f"{what} holds {place.count(self.secret) * 8} bytes of others' memory")

    def held(self) -> tuple[int, int]:
        """Free pages, and pins of pages that are not the neighbours'."""
        memory, vmm = self.machine.memory, self.machine.vmm
        for driver in (self.alice, self.bob):
            vmm.tables.reap(driver.context.index)
        owners, pins = memory.owners(), memory.pins()
        honest = np.isin(owners, [driver.context.guest.domain for driver in (self.alice, self.bob)])
        return memory.free_pages, int(pins[~honest].sum())

    def check_held(self) -> None:
        """Harm "pin": hostile guests have ended, and something of them is left."""
        found, wanted = self.held(), self.baseline
        if found != wanted:
            are, were = (f"{free} free pages and {pins} pins" for free, pins in (found, wanted))
            raise Harm("pin", f"there are {are} when the hostile guests have ended, and were {were}")

    def own_memory(self, domain: int) -> bytes:
        """What a guest's own pages hold."""
        return bytes(self._memory[self.machine.memory.owners() == domain].tobytes())

    # --- frames ---------------------------------------------------------------------------------------------

    def talk(
        self,
        tally: Tally,
        run: Callable[[], object] | None,
        frames: int = TALK,
        *,
        strangers: bool = True,
    ) -> None:
        """The neighbours exchange frames; each arrives, once, as it was sent. Harm "lost", "outside".

        run: moves the machine; None: it has threads. strangers: hostile guests may send to them, too.
        """
        for sender, receiver in self.pairs:
            sent = self._frames(sender, receiver, frames)
            until = time.monotonic() + PATIENCE
            waiting = list(sent)
            received: list[bytes] = []
            while len(received) < len(sent):
                if waiting:
                    del waiting[: sender.send(waiting)]
                if run is not None:
                    run()
                took = self._honest(receiver.recv(1024), strangers)
                received += took
                if not took and (run is not None or time.monotonic() > until):
                    break
                if not took:
                    time.sleep(0.0001)
            tally.frames += len(sent)
            self._compare(tally, sent, received, receiver)

    def _frames(self, sender: Party, receiver: Party, count: int) -> list[bytes]:
        head = _mac(receiver) + _mac(sender) + ETHERTYPE + self._token
        frames = []
        for _ in range(count):
            self._sent += 1
            size = self._random.choice(SIZES)
            frames.append((head + self._sent.to_bytes(8, "big") * (size // 8))[:size])
        return frames

    def _honest(self, frames: list[bytes], strangers: bool) -> list[bytes]:
        """Those of the neighbours; others were sent to them by hostile guests, where that may be."""
        honest = []
        for frame in frames:
            if self._token in frame:
                honest.append(frame)
            else:
                self.look_for_secret("a frame", frame)
                if not strangers:
                    raise Harm("outside", f"a frame of {len(frame)} bytes has come from another VLAN")
        return honest

    def _compare(self, tally: Tally, sent: list[bytes], received: list[bytes], receiver: Party) -> None:
        name = receiver.context.guest.name
        lost = len(sent) - len(received)
        if lost > 0:
            tally.lost += lost
            report = self.machine.vmm.collect_faults()
            why = f"; {report[0]}" if report else ""
            raise Harm("lost", f"{lost} of {len(sent)} frames to {name} have not arrived{why}")
        if received != sent:
            changed = sum(a != b for a, b in zip(received, sent, strict=False))
            raise Harm("outside", f"{changed} frames to {name} are others than were sent")


class Turns:
    """Lets the threads of the VMM have the interpreter as soon as they want it, until `close`."""

    def __init__(self) -> None:
        self._before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH)

    def close(self) -> None:
        sys.setswitchinterval(self._before)


def _mac(driver: Party) -> bytes:
    return parse_mac(driver.context.mac)
