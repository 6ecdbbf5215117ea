"""What a guest in another process may ask for; its first message (protocol/attach.py) read and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict

from cdna.abi import IommuStrategy, Protection
from cdna.base.control_time import SHARE
from cdna.base.units import PROTECTIONS, parse_mac
from cdna.control_checks import Control, broken
from cdna.errors import ConfigError
from cdna.protocol.attach import REQUEST_BYTES, VERSION
from cdna.protocol.hypercall import Malformed
from cdna.settings import ContextSettings, parse_protection

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}", re.ASCII)
LARGEST = 1 << 48  # of any number in a request
ADDRESSES = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){0,5}", re.ASCII)  # of `Policy.macs`

# What a setting of ContextSettings may look like in a request.
_TYPES: dict[str, type | tuple[type, ...]] = {
    "mac": str,
    "vlan": (int, str),
    "protection": str,
    "tx_ring": int,
    "rx_ring": int,
    "weight": int,
    "rate": (int, float),
    "storm": (int, float),
    "flood": (int, float),
    "anti_spoof": bool,
    "promiscuous": bool,
    "all_multicast": bool,
    "multicast": list,
    "seq_modulus": int,
}
# No address: a guest that chose its own could take the gateway's, and with it what is sent there.
HARMLESS = frozenset({"protection", "tx_ring", "rx_ring", "multicast", "all_multicast"})


class PolicyOptions(TypedDict, total=False):
    """The arguments of `Policy`, for a function that hands them on."""

    uids: Collection[int]
    protections: Collection[str]
    max_memory: int
    max_guests: int | None
    choices: Collection[str]
    macs: Collection[str]
    settings: Mapping[str, Any]
    control_share: float


@dataclass(frozen=True)
class Policy:
    """What the guests of one socket may ask for.

    uids: users that may connect, beside root and the VMM's own. protections: of PROTECTIONS; "none" gives a
    guest all of machine memory by DMA. max_memory: bytes of one guest. max_guests: connected at a time; None:
    as many as there are contexts. choices: settings that a guest may choose. macs: MAC addresses that a guest
    may choose, each whole or its first bytes: "02:00:00:01" allows all that begin so; without, each guest has
    the address that the VMM gives it. settings: those that all of them get, whatever they choose, for example
    {"vlan": 7, "rate": 1e9}. control_share: of the time, that all guests together may take to connect, to
    attach and end, and to ask for their status.
    """

    uids: Collection[int] = ()
    protections: Collection[str] = tuple(name for name in PROTECTIONS if name != "none")
    max_memory: int = 64 << 20
    max_guests: int | None = None
    choices: Collection[str] = HARMLESS
    macs: Collection[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    control_share: float = SHARE

    def modes(self) -> list[tuple[Protection, IommuStrategy]]:
        return [parse_protection(name) for name in self.protections]

    def __post_init__(self) -> None:
        self.modes()
        unknown = {*self.choices, *self.settings} - _TYPES.keys()
        if unknown:
            raise ConfigError(f"context setting {min(unknown)!r}: give some of {', '.join(_TYPES)}")
        for beginning in self.macs:
            if not isinstance(beginning, str) or not ADDRESSES.fullmatch(beginning):
                raise ConfigError(f"macs {beginning!r:.80}: give addresses, whole or their first bytes")
        if "mac" in self.choices and not self.macs:
            raise ConfigError("guests may choose mac: give macs, the addresses that they may choose")
        ContextSettings(**self.settings).options()

    def chooses(self, name: str) -> bool:
        """Whether a guest may choose this setting."""
        return name in self.choices or (name == "mac" and bool(self.macs))


@dataclass(frozen=True)
class Request:
    """A guest to create, and the settings of its context."""

    name: str
    memory: int
    settings: ContextSettings


def _check_setting(policy: Policy, name: str, value: Any) -> object:
    if broken(Control.CHECK_SETTING_CHOICE, not policy.chooses(name)):
        allowed = ", ".join(filter(policy.chooses, sorted(_TYPES)))
        raise ConfigError(f"setting {name!r:.80} is not the guest's to choose: it may choose {allowed}")
    kind = _TYPES[name]
    # A bool is an int to isinstance.
    is_bool = isinstance(value, bool)
    if broken(Control.CHECK_SETTING_TYPE, not isinstance(value, kind) or (is_bool and kind is not bool)):
        raise ConfigError(f"setting {name} is {value!r:.80}: give {_kind_name(kind)}")
    number = isinstance(value, int | float)
    if number and broken(Control.CHECK_SETTING_RANGE, not 0 <= value <= LARGEST):
        raise ConfigError(f"setting {name}: give a number from 0 to {LARGEST}")
    if name == "mac":
        _check_mac(policy, value)
    if isinstance(value, list):
        if broken(Control.CHECK_SETTING_LIST, not all(isinstance(address, str) for address in value)):
            raise ConfigError(f"setting {name}: give a list of MAC addresses")
        return tuple(value)
    return value


def _check_mac(policy: Policy, value: object) -> None:
    mac = parse_mac(value)
    allowed = any(mac.startswith(bytes.fromhex(beginning.replace(":", ""))) for beginning in policy.macs)
    if broken(Control.CHECK_SETTING_MAC, not allowed):
        raise ConfigError(f"MAC address {mac.hex(':')}: this VMM allows {', '.join(policy.macs)}")


def _kind_name(kind: type | tuple[type, ...]) -> str:
    return " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))


def parse_request(payload: bytes, policy: Policy) -> Request:
    """A guest's first message. Malformed: it is no request. ConfigError: it asks for what it may not."""
    if broken(Control.CHECK_REQUEST_LONG, len(payload) > REQUEST_BYTES):
        raise Malformed(f"a request of more than {REQUEST_BYTES} bytes")
    try:
        request = json.loads(payload)
    except (ValueError, RecursionError):
        raise Malformed("a request that is no JSON text") from None
    fields = request.keys() if isinstance(request, dict) else None
    if broken(Control.CHECK_REQUEST_FIELDS, fields != {"version", "name", "memory", "settings"}):
        raise Malformed("a request without its fields: version, name, memory, settings")
    if broken(Control.CHECK_REQUEST_VERSION, request["version"] != VERSION):
        raise ConfigError(f"protocol version {request['version']!r:.20}: this VMM speaks {VERSION}")
    name, memory, chosen = request["name"], request["memory"], request["settings"]
    if broken(Control.CHECK_REQUEST_NAME, not isinstance(name, str) or not NAME.fullmatch(name)):
        raise ConfigError("a guest's name has 1 to 64 letters, digits and .:-_")
    whole = isinstance(memory, int) and not isinstance(memory, bool)
    if broken(Control.CHECK_REQUEST_MEMORY, not whole or not 1 <= memory <= policy.max_memory):
        raise ConfigError(f"guest {name!r}: memory of 1 to {policy.max_memory} bytes is allowed")
    if broken(Control.CHECK_REQUEST_SETTINGS, not isinstance(chosen, dict)):
        raise Malformed("a request whose settings are no object")
    settings = {key: _check_setting(policy, key, value) for key, value in chosen.items()}
    protection = str(settings.get("protection", "validated"))
    refused = "protection" not in policy.settings and parse_protection(protection) not in policy.modes()
    if broken(Control.CHECK_REQUEST_PROTECTION, refused):
        raise ConfigError(f"protection {protection!r:.40}: this VMM allows {', '.join(policy.protections)}")
    return Request(name, memory, ContextSettings(**{**settings, **policy.settings, "remote": True}))
