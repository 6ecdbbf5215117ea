"""What a path is: an architecture that can be compared, what it declares, and its contract.

A path is a folder of `cdna.compare.paths` and a line of its registry, or an entry point of another package.
It declares what plans, tables and pages say of it (`ComparisonPath`), and builds its guests for a slice:

1. The worker calls `build(case, load, wire)` in a process with one thread, and owns `load` and `wire`. The
   wire is a `GeneratorWire` when the guests receive: the path adds flow i for guest i, and each guest
   acknowledges its own.
2. The path makes a `Machine` on that wire, and a `Slice` of it; it adds its domains, contexts and guests'
   counters to `Slice.host`, which `ext/cdna/compare/host.pxd` explains. Nothing runs yet.
3. The worker runs the slice. Each domain is then a process of its own, and shares what was shared before.
4. `Scene.complaint` tells what receivers found wrong. `Scene.close` gives back what the domains hold of the
   machine, also after a slice that failed; then the worker closes the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cdna.compare.plan import Case
    from cdna.compare.slice import Slice
    from cdna.compare.vm.scene import VmScene
    from cdna.nic.null_wire import NullWire
    from cdna.nic.traffic import Load

PEER = bytes.fromhex("02cdffffffff")  # the station at the other end of the wire
WINDOW = 256  # frames of one flow under way from the wire, acknowledged or not


def guest_mac(number: int) -> bytes:
    return bytes([0x02, 0xCD, 0x01, 0, 0, number])


@dataclass(frozen=True)
class Scene:
    """What a path has built for one slice."""

    slice: Slice
    complaint: Callable[[], str | None]
    close: Callable[[], None] = lambda: None


class Look(NamedTuple):
    """How plots and pages draw a contender: colours on a light and a dark page, a marker of matplotlib."""

    light: str
    dark: str
    marker: str
    short: str = ""  # name in a table of text, if its own is too long


class Published(NamedTuple):
    """A published profile of one guest, in per cent of the host's time; `direction` is "tx" or "rx"."""

    direction: str
    variant: str
    vmm: float
    driver_domain: float
    guests: float
    idle: float
    instead: str = ""  # the variant that stands in where this one was not measured


@dataclass(frozen=True)
class VmSide:
    """What connects two virtual machines on a path.

    scene: "module:class" of a `VmScene`, imported when used. title, reading: as `ComparisonPath`'s.
    """

    scene: str
    title: str
    reading: str

    def load(self) -> type[VmScene]:
        return _load(self.scene)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class ComparisonPath:
    """A path as the registry has it.

    name: in JSON and of --path. label, title: in a sentence ("1.5 times the bridge"), and of the whole page.
    looks: by variant, in the order of legends; "" is a path without variants, and the first one is what
    sentences are about. protections: those of --protection that it can have; one alone is no choice.
    receives: those of --receive, when frames come from the wire. reading: what a page says of how to read its
    rows. baseline: others are compared with it. build: "module:function", imported when a slice is built.
    """

    name: str
    label: str
    title: str
    looks: Mapping[str, Look]
    reading: str
    build: str
    protections: tuple[str, ...] = ("none",)
    receives: tuple[str, ...] = ()
    baseline: bool = False
    help: Mapping[str, str] = field(default_factory=dict)  # of options of `cdna compare` that are its own
    vm: VmSide | None = None
    published: tuple[Published, ...] = ()
    published_ratios: tuple[tuple[str, float], ...] = ()  # by direction: CDNA over this, with 24 guests

    def settings(
        self, direction: str, protections: Iterable[str], receives: Iterable[str]
    ) -> list[tuple[str, str | None]]:
        """The protections and ways to receive to be measured, of those asked for."""
        modes = self.protections
        if len(modes) > 1:
            modes = tuple(mode for mode in protections if mode in self.protections)
        ways: list[str | None] = [None]
        if self.receives and direction == "rx":
            ways = [way for way in receives if way in self.receives]
        return [(mode, way) for mode in modes for way in ways]

    def contender(self, protection: str, receive: str | None) -> Contender:
        chosen = protection if len(self.protections) > 1 else None
        return self.with_variant(" ".join(filter(None, (chosen, receive))))

    def with_variant(self, variant: str) -> Contender:
        return Contender(self, variant, self.looks[variant])

    def contenders(self) -> list[Contender]:
        return [self.with_variant(variant) for variant in self.looks]

    def make(self, case: Case, load: Load, wire: NullWire) -> Scene:
        """Builds the guests of a case for one slice."""
        return _load(self.build)(case, load, wire)  # type: ignore[no-any-return]


class Contender(NamedTuple):
    """A path with one of its variants: a line of a plot, rows of a table."""

    path: ComparisonPath
    variant: str
    look: Look

    @property
    def name(self) -> str:
        """As in progress and tables: "cdna validated", "bridge"."""
        return f"{self.path.name} {self.variant}".rstrip()

    @property
    def label(self) -> str:
        """As in a legend: "CDNA, iommu shared", "bridge, copy"."""
        return ", ".join(filter(None, (self.path.label, self.variant.replace(":", " "))))

    @property
    def is_main(self) -> bool:
        """Whether sentences are about this one."""
        return not self.path.baseline and self.variant == next(iter(self.path.looks))


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(import_module(module), attribute)
