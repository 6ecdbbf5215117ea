"""The wire null[:rate=RATE]: takes every frame, at most so many bits a second, and brings none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdna.nic.wires import WireKind, WireText

if TYPE_CHECKING:
    from cdna.nic.wire import Wire


def make(text: WireText) -> Wire:
    from cdna.nic.null_wire import NullWire

    if text.rest is None:
        return NullWire()
    if not text.rest.startswith("rate="):
        raise text.bad("give null, or null:rate=RATE, such as null:rate=1G")
    return NullWire(line_rate=text.rate(text.rest.removeprefix("rate=")))


WIRE = WireKind(
    "null",
    ("null[:rate=RATE]",),
    make,
    arguments=None,
    counters={"tx_bad": "Frames that were not what their flow should have sent."},
)
