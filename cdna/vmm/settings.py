"""What a context can be set to, checked and turned into the NIC's own terms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Real
from operator import index
from typing import SupportsIndex, TypedDict, Unpack

from cdna.abi import IommuStrategy, Protection, Takes
from cdna.errors import ConfigError, known, switch, whole

VLAN_TRUNK = 0xFFFF
MAX_MTU = 9000  # bytes
MAX_RATE = 1e15  # bits a second: no wire's, and far from where the arithmetic ends

TAKES_TCP = Takes.TAKES_CSUM | Takes.TAKES_TSO4 | Takes.TAKES_TSO6 | Takes.TAKES_ECN

STRATEGIES = {
    "single-use": IommuStrategy.IOMMU_SINGLE_USE,
    "shared": IommuStrategy.IOMMU_SHARED,
    "persistent": IommuStrategy.IOMMU_PERSISTENT,
    "direct-map": IommuStrategy.IOMMU_DIRECT_MAP,
}
_MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII | re.IGNORECASE)
TABLE = "table"  # the guest's own memory table: of virtio guests, see cdna.nic.virtio.device
PROTECTIONS = ("validated", "none", *(f"iommu:{name}" for name in STRATEGIES))


def parse_protection(text: str) -> tuple[Protection, IommuStrategy]:
    """The mode and, for iommu, the strategy of e.g. "validated" or "iommu:shared"."""
    mode, _, strategy = text.partition(":") if isinstance(text, str) else ("", "", "")
    if mode == "iommu" and strategy in STRATEGIES:
        return Protection.PROTECTION_IOMMU, STRATEGIES[strategy]
    if text == "validated":
        return Protection.PROTECTION_VALIDATED, IommuStrategy.IOMMU_SINGLE_USE
    if text == "none":
        return Protection.PROTECTION_NONE, IommuStrategy.IOMMU_SINGLE_USE
    if text == TABLE:
        return Protection.PROTECTION_TABLE, IommuStrategy.IOMMU_SINGLE_USE
    raise ConfigError(f"protection {text!r}: give one of {', '.join(PROTECTIONS)}")


def parse_mac(text: str) -> bytes:
    """The six bytes of aa:bb:cc:dd:ee:ff."""
    if not isinstance(text, str) or not _MAC.fullmatch(text):
        raise ConfigError(
            f"MAC address {text!r}: give six bytes in hexadecimal, for example 02:00:00:00:00:01"
        )
    return bytes.fromhex(text.replace(":", ""))


def _parse_vlan(value: object) -> int:
    if value == "trunk":
        return VLAN_TRUNK
    if isinstance(value, SupportsIndex) and not isinstance(value, bool) and 0 <= index(value) <= 4094:
        return index(value)
    raise ConfigError(f"VLAN {value!r}: give 1 to 4094, 0 for untagged frames, or 'trunk' for any tag")


def _parse_rate(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, Real):  # which numpy's numbers are, too
        raise ConfigError(f"rate {value!r}: give a number of bits a second, or 0 for no limit")
    if not value <= MAX_RATE:
        raise ConfigError(f"rate {value!r}: give up to {MAX_RATE:.0e} bits a second, or 0 for no limit")
    return value


def _parse_addresses(value: object) -> list[bytes]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigError(f"multicast {value!r:.80}: give a sequence of MAC addresses")
    return [parse_mac(address) for address in value]


class Settings(TypedDict, total=False):
    """The arguments of `ContextSettings`, for a function that hands them on."""

    mac: str | None
    vlan: int | str
    protection: str
    tx_ring: int
    rx_ring: int
    weight: int
    rate: float
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
class ContextSettings:
    """Settings of one context.

    mac: None gives it one of its own. vlan: 0 untagged frames only, 1 to 4094 an access port, "trunk" any.
    tx_ring, rx_ring: descriptors, powers of two. rate: bits a second that it may send, 0: no limit.
    weight: its share when contexts compete. seq_modulus: of the sequence numbers, at least twice the ring.
    coalesce: (descriptors, microseconds) of interrupt moderation; None: the NIC's default.
    vnet_header: each frame starts with a virtio-net header (`cdna.abi`), both ways; it may lack its checksum
    or be large, and the guest takes such frames of others. takes: which, a sum of `abi.Takes`; None: with an
    open checksum, and large TCP segments.
    anti_spoof: frames with another source address than the context's own are dropped; without, addresses
    behind the guest are learned, and frames for them go to it. mtu: bytes of a packet; longer ones are
    dropped both ways. None: as long as the NIC carries.
    remote: the guest is another process, which maps no doorbell vector.
    """

    mac: str | None = None
    vlan: int | str = 0
    protection: str = "validated"
    tx_ring: int = 256
    rx_ring: int = 256
    weight: int = 1
    rate: float = 0
    anti_spoof: bool = True
    promiscuous: bool = False
    all_multicast: bool = False
    multicast: tuple[str, ...] = ()
    coalesce: tuple[int, float] | None = None
    seq_modulus: int = 1 << 32
    vnet_header: bool = False
    takes: int | None = None
    mtu: int | None = None
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
        return parse_mac(self.mac) if self.mac is not None else None

    def options(self) -> dict[str, object]:
        """The settings that can change while the context runs, as `Nic.set_option` takes them."""
        options = {name: getattr(self, name) for name in _OPTIONS if name != "mac"}
        if self.takes is None:
            options["takes"] = TAKES_TCP if self.vnet_header else 0
        return self.parse_options(options)

    @staticmethod
    def parse_options(options: Mapping[str, object]) -> dict[str, object]:
        parsed: dict[str, object] = {}
        known("context setting", options, _OPTIONS)
        for name, value in options.items():
            if name == "vlan":
                parsed[name] = _parse_vlan(value)
            elif name == "mac":
                parsed[name] = parse_mac(value)  # type: ignore[arg-type]
            elif name == "multicast":
                parsed[name] = _parse_addresses(value)
            elif name == "coalesce":
                if value is not None:
                    parsed[name] = value
            elif name == "weight":
                parsed[name] = whole(name, value, 1, 1000)
            elif name == "rate":
                parsed[name] = _parse_rate(value)
            elif name == "takes":
                parsed[name] = value
            elif name == "mtu":
                parsed[name] = whole(name, value or 0, 0, MAX_MTU)
            else:
                parsed[name] = switch(name, value)
        return parsed


_OPTIONS = (
    "mac",
    "vlan",
    "weight",
    "rate",
    "anti_spoof",
    "promiscuous",
    "all_multicast",
    "multicast",
    "coalesce",
    "takes",
    "mtu",
)
assert set(_OPTIONS) <= {f.name for f in fields(ContextSettings)}
