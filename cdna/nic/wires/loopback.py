"""The wire loopback: every frame that is sent comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdna.nic.wires import WireKind, WireText

if TYPE_CHECKING:
    from cdna.nic.wire import Wire


def make(text: WireText) -> Wire:
    from cdna.nic.loopback_wire import LoopbackWire

    return LoopbackWire()


WIRE = WireKind("loopback", ("loopback",), make, arguments=False)
