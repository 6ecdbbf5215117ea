"""Guests of this process that stand for programs: sinks and generators."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from cdna.base.readers import whole
from cdna.base.units import MAX_MTU, is_mac
from cdna.extend.permits import Permits
from cdna.extend.setting import Setting
from cdna.lab import values
from cdna.lab.kinds import CONTEXT, PROTECTION, GuestKind, GuestPlan

if TYPE_CHECKING:
    from cdna.lab.kinds.base import Shared
    from cdna.lab.kinds.synthetic.member import SyntheticMember

MIN_SIZE, MAX_SIZE = 60, 9014  # of a frame, without the FCS


@dataclass(frozen=True)
class SyntheticPlan(GuestPlan):
    """A sink; with `to`, a MAC address or the name of a guest, a generator of frames to it as well."""

    kind: ClassVar[str] = "synthetic"

    mtu: int = field(default=MAX_MTU, kw_only=True)  # it takes frames of any size
    to: str | None = None
    size: int = 64  # bytes of a frame, without the FCS


def _member(shared: Shared, plan: SyntheticPlan) -> SyntheticMember:
    from cdna.lab.kinds.synthetic.member import SyntheticMember

    return SyntheticMember(shared, plan)


def _frame_size(where: str, value: object) -> int:
    return whole(where, value, MIN_SIZE, MAX_SIZE)


def _destination(where: str, value: object) -> str:
    """Where frames are sent to: a MAC address, or the name of a guest."""
    if is_mac(value):
        return value.lower()
    return values.name(where, value)


KIND = GuestKind(
    "synthetic",
    SyntheticPlan,
    (*CONTEXT, PROTECTION, Setting("to", _destination), Setting("size", _frame_size)),
    _member,
    descriptors=3,
    permits=lambda: Permits(modules=("cdna.lab.kinds.synthetic.member",)),
)
