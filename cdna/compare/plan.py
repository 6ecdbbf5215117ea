"""What a comparison measures: the settings of `cdna compare` and the cases that they come to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from cdna.base.units import MAX_RATE, PROTECTIONS
from cdna.compare.path import Contender
from cdna.compare.paths import path_named, paths
from cdna.errors import BadSetting

DIRECTIONS = ("tx", "rx")
DOMAINS = ("process", "inline")

MAX_GUESTS = 63  # the VMM schedules 64 domains, and one of them is the driver domain
MIN_SIZE = 60  # bytes: Ethernet's minimum without the FCS
MAX_SIZE = 9018  # bytes: 9000 behind an Ethernet header and a VLAN tag
MAX_SECONDS = 3600.0
MIN_LINE_RATE = 1e6  # bits a second


def receives() -> tuple[str, ...]:
    """The ways to receive of all paths."""
    return tuple(dict.fromkeys(way for path in paths().values() for way in path.receives))


@dataclass(frozen=True)
class Case:
    """One thing to measure. `receive` is None unless the path receives, and has several ways to.

    `size` is a number of bytes without the FCS, "imix", or the path of a capture file.
    """

    path: str
    direction: str
    guests: int
    size: int | str
    protection: str
    domains: str
    receive: str | None = None

    @property
    def contender(self) -> Contender:
        """What competes in this case."""
        return path_named(self.path).contender(self.protection, self.receive)

    def __str__(self) -> str:
        guests = "1 guest" if self.guests == 1 else f"{self.guests} guests"
        where = "" if self.domains == "process" else f", {self.domains}"
        return f"{self.direction}, {guests}, {self.contender.name}{where}"


@dataclass(frozen=True)
class Plan:
    """The settings of a comparison. Raises `BadSetting` for one that cannot be.

    `seconds` is what each case is measured for, warm-up and drain aside; `line_rate` is in bits a second
    on the wire, 0 for a wire that is never the limit; `verify` checks every byte of every frame.
    """

    guests: tuple[int, ...] = (1, 2, 4, 8, 16, 24)
    direction: tuple[str, ...] = DIRECTIONS
    size: int | str = 1514
    path: tuple[str, ...] = field(default_factory=lambda: tuple(paths()))
    protection: tuple[str, ...] = ("validated", "none")
    domains: tuple[str, ...] = ("process",)
    receive: tuple[str, ...] = field(default_factory=receives)
    seconds: float = 0.5
    line_rate: float = 0.0
    verify: bool = False

    def __post_init__(self) -> None:
        check_each("guests", self.guests, f"give numbers from 1 to {MAX_GUESTS}, e.g. 1,2,4")
        for guests in self.guests:
            check_integer("guests", guests, 1, MAX_GUESTS, f"give numbers from 1 to {MAX_GUESTS}, e.g. 1,2,4")
        check_choices("direction", self.direction, DIRECTIONS)
        check_choices("path", self.path, tuple(paths()))
        check_choices("protection", self.protection, PROTECTIONS)
        check_choices("domains", self.domains, DOMAINS)
        check_choices("receive", self.receive, receives())
        check_seconds(self.seconds)
        if not isinstance(self.size, str):
            check_size("size", self.size, f"{SIZES}, imix or a capture file")
        check_line_rate(self.line_rate)

    def groups(self) -> list[tuple[Case, ...]]:
        """The cases, in groups of what is compared: same direction, guests, frames and domains.

        The contenders of a group are measured in alternating slices, so that what disturbs the machine
        for a while disturbs all of them, and the ratio of two is taken slice by slice.
        """
        return [
            tuple(self._contenders(direction, guests, domains))
            for domains in self.domains
            for direction in self.direction
            for guests in sorted(self.guests)
        ]

    def cases(self) -> list[Case]:
        """All cases, group after group."""
        return [case for group in self.groups() for case in group]

    def _contenders(self, direction: str, guests: int, domains: str) -> list[Case]:
        return [
            Case(path.name, direction, guests, self.size, protection, domains, receive)
            for path in paths().values()
            if path.name in self.path
            for protection, receive in path.settings(direction, self.protection, self.receive)
        ]


SIZES = f"give from {MIN_SIZE} to {MAX_SIZE} bytes"
LINE_RATES = "give from 1M to 1000G bits a second, e.g. 10G or 1.5G, or 0 for no limit"


def check_each(setting: str, values: Sequence[object], advice: str) -> None:
    """Raises `BadSetting` when a list is empty or names something twice."""
    if not values:
        raise BadSetting(setting, "", f"nothing is named; {advice}")
    for i, value in enumerate(values):
        if value in values[:i]:
            raise BadSetting(setting, value, "named twice; once is enough")


def check_choices(setting: str, values: Sequence[str], choices: Sequence[str]) -> None:
    """Raises `BadSetting` when a list is empty, or names something twice or what is no choice."""
    advice = f"give one or more of {', '.join(choices)}"
    check_each(setting, values, advice)
    for value in values:
        if value not in choices:
            raise BadSetting(setting, value, f"there is no such {_NOUN.get(setting, setting)}; {advice}")


_NOUN = {"domains": "kind of domains", "receive": "way to receive"}


def check_integer(setting: str, value: object, least: int, most: int, advice: str) -> None:
    """Raises `BadSetting` unless least <= value <= most."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadSetting(setting, value, f"not a whole number; {advice}")
    if not least <= value <= most:
        raise BadSetting(setting, value, f"too {'few' if value < least else 'many'}; {advice}")


def check_size(setting: str, value: object, advice: str) -> None:
    """Raises `BadSetting` unless this is the size of a frame that the generator can make."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadSetting(setting, value, f"not a whole number of bytes; {advice}")
    if not MIN_SIZE <= value <= MAX_SIZE:
        wrong = "short" if value < MIN_SIZE else "long"
        raise BadSetting(setting, value, f"too {wrong} for a frame; {advice}")


def check_seconds(seconds: float) -> None:
    """Raises `BadSetting` for a time that nothing can be measured in."""
    if not (math.isfinite(seconds) and 0 < seconds <= MAX_SECONDS):
        raise BadSetting("seconds", seconds, f"give a time above 0 and up to {MAX_SECONDS:.0f}, e.g. 0.5")


def check_line_rate(line_rate: float) -> None:
    """Raises `BadSetting` for a rate that no wire has."""
    if not (line_rate == 0 or MIN_LINE_RATE <= line_rate <= MAX_RATE):
        raise BadSetting("line_rate", line_rate, LINE_RATES)
