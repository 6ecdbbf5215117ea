"""Wires by name: null, loopback, pcap:READ,WRITE and tap:NAME."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdna.errors import ConfigError

if TYPE_CHECKING:
    from cdna.nic.wire import Wire

KNOWN = (
    "null",
    "loopback",
    "pcap:READ[,WRITE]",
    "pcap:[read=FILE][,write=FILE][,speed=full|recorded][,loop=N]",
    "tap:NAME",
)
PCAP_SETTINGS = ("read", "write", "speed", "loop")


def make_wire(text: str) -> Wire:
    """The wire that `text` names, one of KNOWN. Raises ConfigError or ResourceError, each one line."""
    kind, colon, rest = text.partition(":")
    if "\0" in text:
        raise ConfigError(f"wire {text!r}: no name has a zero byte; give one of {', '.join(KNOWN)}")
    if kind in ("null", "loopback") and colon:
        raise ConfigError(f"wire {text!r}: {kind} has no settings; give just {kind}")
    if kind in ("pcap", "tap") and not rest:
        raise ConfigError(f"wire {text!r}: give {' or '.join(k for k in KNOWN if k.startswith(kind))}")
    if kind == "null":
        from cdna.nic.null_wire import NullWire

        return NullWire()
    if kind == "loopback":
        from cdna.nic.loopback_wire import LoopbackWire

        return LoopbackWire()
    if kind == "pcap":
        return _make_pcap(text, rest)
    if kind == "tap":
        from cdna.nic.tap_wire import TapWire

        return TapWire(rest)
    raise ConfigError(f"unknown wire {text!r}; the known ones are {', '.join(KNOWN)}")


def _make_pcap(text: str, rest: str) -> Wire:
    from cdna.nic.pcap_wire import PcapWire

    given = _pcap_settings(text, rest)
    loop = given.get("loop", "1")
    if not (loop.isascii() and loop.isdigit()):
        raise ConfigError(f"wire {text!r}: loop={loop} is no number; give 1 or more, or 0 for no end")
    return PcapWire(given.get("read"), given.get("write"), speed=given.get("speed", "full"), loop=int(loop))


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
