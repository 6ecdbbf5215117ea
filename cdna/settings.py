"""What a context can be set to: each setting declared once, checked, and turned into the NIC's own terms.

`Declared` has the settings that text can give. Options of commands, keys of plan files, NAME=VALUE of
`cdna ctl set` and what JSON says of a guest follow from it. Nothing here imports a compiled module before a
call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from operator import index
from typing import TYPE_CHECKING, Any, SupportsIndex, TypedDict, Unpack

from cdna.base import readers, units
from cdna.errors import ConfigError, known, switch, whole
from cdna.extend.setting import Setting

if TYPE_CHECKING:
    from cdna.abi import IommuStrategy, Protection

# Single-use I/O pages are for buffers of up to 12 KiB (guest_driver/queues.pxd); a large segment needs 64.
LAB_PROTECTIONS = tuple(mode for mode in units.PROTECTIONS if mode != "iommu:single-use")
FRAMES_ADVICE = "give frames a second such as 100 or 2K, at most 1G, or 0 for no limit"
TABLE = "table"  # the guest's own memory table: of virtio guests, see cdna.nic.virtio.device


def parse_protection(text: str) -> tuple[Protection, IommuStrategy]:
    """The mode and, for iommu, the strategy of e.g. "validated" or "iommu:shared"."""
    from cdna.abi import IommuStrategy, Protection

    mode, _, strategy = text.partition(":") if isinstance(text, str) else ("", "", "")
    if mode == "iommu" and strategy in units.STRATEGIES:
        name = strategy.upper().replace("-", "_")
        return Protection.PROTECTION_IOMMU, IommuStrategy[f"IOMMU_{name}"]
    if text == "validated":
        return Protection.PROTECTION_VALIDATED, IommuStrategy.IOMMU_SINGLE_USE
    if text == "none":
        return Protection.PROTECTION_NONE, IommuStrategy.IOMMU_SINGLE_USE
    if text == TABLE:
        return Protection.PROTECTION_TABLE, IommuStrategy.IOMMU_SINGLE_USE
    raise ConfigError(f"protection {text!r}: give one of {', '.join(units.PROTECTIONS)}")


def _parse_vlan(value: object) -> int:
    if value == units.TRUNK:
        return units.VLAN_TRUNK
    if (
        isinstance(value, SupportsIndex)
        and not isinstance(value, bool)
        and 0 <= index(value) <= units.MAX_VLAN
    ):
        return index(value)
    raise ConfigError(f"VLAN {value!r}: {units.VLAN_ADVICE.format(repr(units.TRUNK))}")


def _parse_rate(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, Real):  # which numpy's numbers are, too
        raise ConfigError(f"rate {value!r}: give a number of bits a second, or 0 for no limit")
    if not value <= units.MAX_RATE:
        raise ConfigError(f"rate {value!r}: give up to {units.MAX_RATE:.0e} bits a second, or 0 for no limit")
    return value


def _parse_frames(name: str) -> Callable[[object], float]:
    def parse(value: object) -> float:
        if isinstance(value, Real) and not isinstance(value, bool):
            number = float(value)
            if 0 <= number <= units.MAX_FRAMES and number.is_integer():
                return number
        raise ConfigError(f"{name} {value!r}: {FRAMES_ADVICE}")

    return parse


def _parse_addresses(value: object) -> list[bytes]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"multicast {value!r:.80}: give a sequence of MAC addresses")
    return [units.parse_mac(address) for address in value]


def _read_mac(where: str, value: object) -> str:
    if not units.is_mac(value):
        raise readers.bad(where, value, units.MAC_ADVICE)
    address = units.parse_mac(value)
    if address[0] & 1 or not any(address):
        raise readers.bad(where, value, "this names no single device; give an even first byte, such as 02")
    return value.lower()


def _read_vlan(where: str, value: object) -> int | str:
    if value == units.TRUNK:
        return units.TRUNK
    try:
        return readers.whole(where, value, 0, units.MAX_VLAN)
    except ConfigError:
        raise readers.bad(where, value, units.VLAN_ADVICE.format(units.TRUNK)) from None


def _read_weight(where: str, value: object) -> int:
    return readers.whole(where, value, 1, units.MAX_WEIGHT)


def _read_rate(where: str, value: object) -> float:
    """Bits a second, also as text with K, M, G or T; 0 for no limit."""
    advice = "give bits a second such as 100M or 1.5G, at most 1T, or 0 for no limit"
    number: float
    if isinstance(value, str):
        try:
            number = units.parse_rate(value)
        except ValueError:
            raise readers.bad(where, value, advice) from None
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value) if abs(value) < units.MAX_RATE * 10 else math.inf
    else:
        raise readers.bad(where, value, advice)
    if not 0 <= number <= units.MAX_RATE:
        raise readers.bad(where, value, advice)
    return number


def _read_frames(where: str, value: object) -> float:
    """Frames a second, also as text with K, M or G; 0 for no limit."""
    try:
        number = units.parse_rate(value) if isinstance(value, str) else value
        return _parse_frames(where)(number)
    except (ConfigError, ValueError):
        raise readers.bad(where, value, FRAMES_ADVICE) from None


def _read_protection(where: str, value: object) -> str:
    if not isinstance(value, str) or value not in LAB_PROTECTIONS:
        raise readers.bad(where, value, f"give one of {', '.join(LAB_PROTECTIONS)}")
    return value


def _read_mtu(where: str, value: object) -> int:
    return readers.whole(where, value, units.MIN_GUEST_MTU, units.MAX_MTU)


def _declared(default: Any, setting: Setting, parse: Callable[[Any], object] = lambda value: value) -> Any:
    """A field with its setting. parse: from the value in Python to what the NIC takes."""
    return field(default=default, metadata={"setting": setting, "parse": parse})


def _parse_switch(name: str) -> Callable[[object], bool]:
    return lambda value: switch(name, value)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """The settings of a context that text can give.

    mac: None gives it one of its own. vlan: 0 untagged frames only, 1 to 4094 an access port, "trunk" any.
    weight: its share when contexts compete. rate: bits a second that it may send, 0: no limit.
    storm: broadcasts and multicasts a second that it may send; flood: of its frames to unknown destinations,
    as many a second are given to promiscuous contexts, too. 0: no limit.
    mtu: bytes of a packet; longer ones are dropped both ways. None: as long as the NIC carries.
    anti_spoof: frames with another source address than the context's own are dropped; without, addresses
    behind the guest are learned, and frames for them go to it.
    """

    mac: str | None = _declared(
        None, Setting("mac", _read_mac, "MAC", "Default: the context's own."), units.parse_mac
    )
    vlan: int | str = _declared(
        0,
        Setting("vlan", _read_vlan, "ID|trunk", "The VLAN of a guest.", live=True, shared=True),
        _parse_vlan,
    )
    weight: int = _declared(
        1,
        Setting("weight", _read_weight, "N", "A share when guests compete.", live=True, shared=True),
        lambda value: whole("weight", value, 1, units.MAX_WEIGHT),
    )
    rate: float = _declared(
        0,
        Setting(
            "rate",
            _read_rate,
            "RATE",
            "Bits a second that a guest may send: 100M.",
            live=True,
            shared=True,
        ),
        _parse_rate,
    )
    storm: float = _declared(
        0,
        Setting(
            "storm",
            _read_frames,
            "FRAMES",
            "Broadcasts and multicasts a second that a guest may send: 1K.",
            live=True,
            shared=True,
        ),
        _parse_frames("storm"),
    )
    flood: float = _declared(
        0,
        Setting(
            "flood",
            _read_frames,
            "FRAMES",
            "Frames to unknown destinations a second that promiscuous guests get: 1K.",
            live=True,
            shared=True,
        ),
        _parse_frames("flood"),
    )
    protection: str = _declared(
        "validated",
        Setting("protection", _read_protection, "MODE", "DMA protection: validated.", live=True, shared=True),
    )
    mtu: int | None = _declared(
        None,
        Setting("mtu", _read_mtu, "BYTES", "Largest packet: 1500.", shared=True),
        lambda value: whole("mtu", value or 0, 0, units.MAX_MTU),
    )
    anti_spoof: bool = _declared(
        True, Setting("anti_spoof", readers.switch, live=True), _parse_switch("anti_spoof")
    )
    promiscuous: bool = _declared(
        False, Setting("promiscuous", readers.switch, live=True), _parse_switch("promiscuous")
    )


SETTINGS: Mapping[str, Setting] = {f.name: f.metadata["setting"] for f in fields(Declared)}


class Settings(TypedDict, total=False):
    """The arguments of `ContextSettings`, for a function that hands them on."""

    mac: str | None
    vlan: int | str
    protection: str
    tx_ring: int
    rx_ring: int
    weight: int
    rate: float
    storm: float
    flood: float
    anti_spoof: bool
    promiscuous: bool
    all_multicast: bool
    multicast: tuple[str, ...]
    coalesce: tuple[int, float] | None
    seq_modulus: int
    vnet_header: bool
    takes: int | None
    mtu: int | None
    remote: bool


@dataclass(frozen=True)
class ContextSettings(Declared):
    """Settings of one context: those of `Declared`, and what its guest's driver asks for.

    tx_ring, rx_ring: descriptors, powers of two. seq_modulus: of the sequence numbers, at least twice a ring.
    coalesce: (descriptors, microseconds) of interrupt moderation; None: the NIC's default.
    vnet_header: each frame starts with a virtio-net header (`cdna.abi`), both ways; it may lack its checksum
    or be large, and the guest takes such frames of others. takes: which, a sum of `abi.Takes`; None: with an
    open checksum, and large TCP segments.
    remote: the guest is another process, which maps no doorbell vector.
    """

    tx_ring: int = 256
    rx_ring: int = 256
    all_multicast: bool = False
    multicast: tuple[str, ...] = ()
    coalesce: tuple[int, float] | None = None
    seq_modulus: int = 1 << 32
    vnet_header: bool = False
    takes: int | None = None
    remote: bool = False
    mode: Protection = field(init=False)
    strategy: IommuStrategy = field(init=False)

    @classmethod
    def of(cls, **settings: Unpack[Settings]) -> ContextSettings:
        """The settings of keywords that a caller handed on. ConfigError: there is no such setting."""
        known("context setting", settings, Settings.__annotations__)
        return cls(**settings)

    def __post_init__(self) -> None:
        mode, strategy = parse_protection(self.protection)
        object.__setattr__(self, "mode", mode)
        object.__setattr__(self, "strategy", strategy)
        for name in ("tx_ring", "rx_ring", "seq_modulus"):  # which of these are possible, the NIC says
            object.__setattr__(self, name, whole(name, getattr(self, name), 0, 1 << 32))
        for name in ("vnet_header", "remote"):
            object.__setattr__(self, name, switch(name, getattr(self, name)))

    @property
    def mac_bytes(self) -> bytes | None:
        return units.parse_mac(self.mac) if self.mac is not None else None

    def options(self) -> dict[str, object]:
        """The settings that can change while the context runs, as `Nic.set_option` takes them."""
        options = {name: getattr(self, name) for name in _OPTIONS if name != "mac"}
        if self.takes is None:
            from cdna.abi import Takes

            tcp = Takes.TAKES_CSUM | Takes.TAKES_TSO4 | Takes.TAKES_TSO6 | Takes.TAKES_ECN
            options["takes"] = tcp if self.vnet_header else 0
        return self.parse_options(options)

    @staticmethod
    def parse_options(options: Mapping[str, object]) -> dict[str, object]:
        known("context setting", options, _OPTIONS)
        return {
            name: _OPTIONS[name](value)
            for name, value in options.items()
            if name != "coalesce" or value is not None
        }


_OPTIONS: dict[str, Callable[[Any], object]] = {
    **{f.name: f.metadata["parse"] for f in fields(Declared) if f.name != "protection"},
    "all_multicast": _parse_switch("all_multicast"),
    "multicast": _parse_addresses,
    "coalesce": lambda value: value,
    "takes": lambda value: value,
}
