"""The registry of wires: what a NIC can be plugged into by name, as in tap:cdna0,queues=4.

A wire is one file: an entry (`WireKind`) beside the functions that it names. This package's are in OWN;
another package's is an entry point of the group cdna.wires. docs/extending.md has the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cdna.base.units import MAX_RATE, parse_rate
from cdna.errors import ConfigError
from cdna.extend.permits import Permits
from cdna.extend.registry import Registry

if TYPE_CHECKING:
    from cdna.extend.host import Check
    from cdna.nic.wire import Wire

OWN = {name: f"cdna.nic.wires.{name}:WIRE" for name in ("null", "loopback", "pcap", "tap", "packet")}


@dataclass(frozen=True)
class WireText:
    """A wire as a user names it: KIND or KIND:REST. The methods raise ConfigError, in one line."""

    text: str
    rest: str | None  # None: there is no colon

    def bad(self, advice: str) -> ConfigError:
        return ConfigError(f"wire {self.text!r}: {advice}")

    def device(self, *known: str) -> tuple[str, dict[str, str]]:
        """The name in front and the settings NAME=VALUE behind it, of those that are known."""
        device, *parts = (self.rest or "").split(",")
        given: dict[str, str] = {}
        for part in parts:
            name, equals, value = part.partition("=")
            if not equals or name not in known:
                raise self.bad(f"unknown setting {part!r}; give {' or '.join(known)}, with =")
            if name in given:
                raise self.bad(f"{name} is given twice")
            given[name] = value
        return device, given

    def number(self, name: str, value: str, right: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise self.bad(f"{name}={value} is no number; give {right}")
        return int(value)

    def switch(self, name: str, value: str) -> bool:
        if value not in ("on", "off"):
            raise self.bad(f"{name}={value}; give on or off")
        return value == "on"

    def rate(self, rate: str) -> float:
        """Bits a second, with K, M, G or T."""
        try:
            number = parse_rate(rate)
        except ValueError:
            number = 0.0
        if not 0 < number <= MAX_RATE:
            raise self.bad(f"rate={rate}: give bits a second, such as 1G or 100M")
        return number


@dataclass(frozen=True)
class WireKind:
    """A wire that can be named.

    forms: how it is written. make: makes one, which its caller closes; raises ConfigError or ResourceError.
    arguments: whether anything has to stand behind the colon (True), may (None), or must not (False).
    live: whether other stations are on it, so that a frame with an address of ours tells of a duplicate.
    host_device: the device of this host's that is its other side, and is made and goes with the wire.
    permits: what it needs of a server's sandbox. descriptors: how many it holds, at most.
    counters: by name what each counter of `Wire.stats` means, beside those that every wire has; a name that
    starts with tx_lost, tx_oversize, rx_drop_, rx_oversize or rx_bad_offload counts lost frames.
    checks: what `cdna doctor` looks at for it.
    """

    name: str
    forms: tuple[str, ...]
    make: Callable[[WireText], Wire]
    arguments: bool | None = True
    live: bool = False
    host_device: Callable[[WireText], str | None] = lambda text: None
    permits: Callable[[], Permits] = Permits
    descriptors: Callable[[WireText], int] = lambda text: 0
    counters: Mapping[str, str] = field(default_factory=dict)
    checks: Sequence[Check] = ()


WIRES: Registry[WireKind] = Registry("wire", "cdna.wires", WireKind, OWN)


def _forms() -> str:
    return ", ".join(form for entry in WIRES.all() for form in entry.forms)


def named_wire(text: str) -> tuple[WireKind, WireText]:
    """The kind of wire that `text` names, and what it says. ConfigError: there is none such."""
    name, colon, rest = text.partition(":")
    if "\0" in text:
        raise ConfigError(f"wire {text!r}: no name has a zero byte; give one of {_forms()}")
    kind = WIRES.get(name)
    if kind is None:
        raise ConfigError(f"unknown wire {text!r}; the known ones are {_forms()}")
    said = WireText(text, rest if colon else None)
    if kind.arguments is False and colon:
        raise said.bad(f"{name} has no settings; give just {name}")
    if kind.arguments and not rest:
        raise said.bad(f"give {' or '.join(kind.forms)}")
    return kind, said


def make_wire(text: str) -> Wire:
    """The wire that `text` names, such as tap:cdna0. Raises ConfigError or ResourceError, each one line."""
    kind, said = named_wire(text)
    return kind.make(said)
