"""The wire pcap: frames come from one capture file and go to another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdna.nic.wires import WireKind, WireText

if TYPE_CHECKING:
    from cdna.nic.wire import Wire

SETTINGS = ("read", "write", "speed", "loop")


def make(text: WireText) -> Wire:
    from cdna.nic.pcap_wire import PcapWire

    given = _settings(text)
    loop = text.number("loop", given.get("loop", "1"), "1 or more, or 0 for no end")
    return PcapWire(given.get("read"), given.get("write"), speed=given.get("speed", "full"), loop=loop)


def _settings(text: WireText) -> dict[str, str]:
    """Files by position, read then write, or settings by name (as a file with "=" in its name needs)."""
    given: dict[str, str] = {}
    for position, part in enumerate((text.rest or "").split(",")):
        name, equals, value = part.partition("=")
        if not equals and position < 2:
            name, value = SETTINGS[position], part
        if name not in SETTINGS:
            raise text.bad(f"unknown setting {part!r}; give {', '.join(SETTINGS)}")
        if name in given:
            raise text.bad(f"{name} is given twice")
        if value:
            given[name] = value
    return given


WIRE = WireKind(
    "pcap",
    ("pcap:READ[,WRITE]", "pcap:[read=FILE][,write=FILE][,speed=full|recorded][,loop=N]"),
    make,
    descriptors=lambda text: 2,
)
