"""Wires by name: null, loopback, pcap:READ,WRITE, tap:NAME and packet:INTERFACE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdna.base.units import MAX_RATE, parse_rate
from cdna.errors import ConfigError

if TYPE_CHECKING:
    from cdna.nic.wire import Wire

KNOWN = (
    "null[:rate=RATE]",
    "loopback",
    "pcap:READ[,WRITE]",
    "pcap:[read=FILE][,write=FILE][,speed=full|recorded][,loop=N]",
    "tap:NAME[,queues=N][,vnet=off]",
    "packet:INTERFACE[,vnet=off]",
)
PCAP_SETTINGS = ("read", "write", "speed", "loop")


def make_wire(text: str) -> Wire:
    """The wire that `text` names, one of KNOWN. Raises ConfigError or ResourceError, each one line."""
    kind, colon, rest = text.partition(":")
    if "\0" in text:
        raise ConfigError(f"wire {text!r}: no name has a zero byte; give one of {', '.join(KNOWN)}")
    if kind == "loopback" and colon:
        raise ConfigError(f"wire {text!r}: {kind} has no settings; give just {kind}")
    if kind == "null" and colon and not rest.startswith("rate="):
        raise ConfigError(f"wire {text!r}: give null, or null:rate=RATE, such as null:rate=1G")
    if kind in ("pcap", "tap", "packet") and not rest:
        raise ConfigError(f"wire {text!r}: give {' or '.join(k for k in KNOWN if k.startswith(kind))}")
    if kind == "null":
        from cdna.nic.null_wire import NullWire

        return NullWire(line_rate=_rate(text, rest.removeprefix("rate=")) if colon else None)
    if kind == "loopback":
        from cdna.nic.loopback_wire import LoopbackWire

        return LoopbackWire()
    if kind == "pcap":
        return _make_pcap(text, rest)
    if kind == "tap":
        from cdna.nic.tap_wire import TapWire

        name, given = _device_settings(text, rest, ("queues", "vnet"))
        queues = _number(text, "queues", given.get("queues", "1"), "1 or more")
        return TapWire(name, queues=queues, vnet_header=_switch(text, "vnet", given.get("vnet", "on")))
    if kind == "packet":
        from cdna.nic.packet_wire import PacketWire

        name, given = _device_settings(text, rest, ("vnet",))
        return PacketWire(name, vnet_header=_switch(text, "vnet", given.get("vnet", "on")))
    raise ConfigError(f"unknown wire {text!r}; the known ones are {', '.join(KNOWN)}")


def _rate(text: str, rate: str) -> float:
    """Bits a second, with K, M, G or T."""
    try:
        number = parse_rate(rate)
    except ValueError:
        number = 0.0
    if not 0 < number <= MAX_RATE:
        raise ConfigError(f"wire {text!r}: rate={rate}: give bits a second, such as 1G or 100M")
    return number


def _make_pcap(text: str, rest: str) -> Wire:
    from cdna.nic.pcap_wire import PcapWire

    given = _pcap_settings(text, rest)
    loop = _number(text, "loop", given.get("loop", "1"), "1 or more, or 0 for no end")
    return PcapWire(given.get("read"), given.get("write"), speed=given.get("speed", "full"), loop=loop)


def _pcap_settings(text: str, rest: str) -> dict[str, str]:
    """Files by position, read then write, or settings by name (as a file with "=" in its name needs)."""
    given: dict[str, str] = {}
    for position, part in enumerate(rest.split(",")):
        name, equals, value = part.partition("=")
        if not equals and position < 2:
            name, value = PCAP_SETTINGS[position], part
        if name not in PCAP_SETTINGS:
            raise ConfigError(f"wire {text!r}: unknown setting {part!r}; give {', '.join(PCAP_SETTINGS)}")
        if name in given:
            raise ConfigError(f"wire {text!r}: {name} is given twice")
        if value:
            given[name] = value
    return given


def _device_settings(text: str, rest: str, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """A device's name and the settings behind it, by name."""
    device, *parts = rest.split(",")
    given: dict[str, str] = {}
    for part in parts:
        name, equals, value = part.partition("=")
        if not equals or name not in known:
            raise ConfigError(f"wire {text!r}: unknown setting {part!r}; give {' or '.join(known)}, with =")
        if name in given:
            raise ConfigError(f"wire {text!r}: {name} is given twice")
        given[name] = value
    return device, given


def _number(text: str, name: str, value: str, right: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise ConfigError(f"wire {text!r}: {name}={value} is no number; give {right}")
    return int(value)


def _switch(text: str, name: str, value: str) -> bool:
    if value not in ("on", "off"):
        raise ConfigError(f"wire {text!r}: {name}={value}; give on or off")
    return value == "on"
