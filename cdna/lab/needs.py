"""What the server of a lab still has to do once it serves, from its plan: its sandbox leaves it that."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from cdna.errors import ConfigError
from cdna.extend.permits import Access, Permits
from cdna.lab.kinds import KINDS, GuestPlan, kind_of, kinds_of
from cdna.lab.plan import LabPlan
from cdna.nic.wires import WIRES, named_wire
from cdna.sandbox import Needs
from cdna.sandbox.privileges import User

NEW_FILE = Access.MAKE_REG | Access.REMOVE_FILE | Access.READ_FILE | Access.WRITE_FILE
MODULES = ("cdna.lab.capture", "cdna.lab.metrics", "cdna.lab.rates")  # imported by requests


def needs_of(
    plan: LabPlan,
    socket: str,
    *,
    user: User | None = None,
    json_to: Path | None = None,
    paths: Iterable[str] = (),
    own_directory: bool = False,
) -> Needs:
    """What `plan` needs. socket: the control socket; own_directory: whose directory goes with it.

    paths: directories for sockets of guests to come.
    """
    needs = Needs(mode=plan.sandbox, user=user)
    wire, _ = named_wire(plan.wire)
    needs.add(wire.permits())
    for kind in kinds_of(plan.guests):
        needs.add(kind.permits())
    for guest in plan.guests:
        needs.add(guest.permits())
    needs.socket(socket)
    if own_directory:
        needs.allow(os.path.dirname(os.path.dirname(socket)), Access.REMOVE_DIR)
    for path in paths:
        needs.sockets(os.path.abspath(path))
    if plan.metrics is not None and "/" in plan.metrics:
        needs.socket(plan.metrics)
    if json_to is not None:
        regular = json_to.is_file() or not json_to.exists()
        needs.allow(str(json_to.parent if regular else json_to), NEW_FILE)
    needs.abstract = os.environ.get("NOTIFY_SOCKET", "").startswith("@")
    return needs


def declared() -> list[Permits]:
    """What each registered wire and kind of guest permits."""
    return [*(wire.permits() for wire in WIRES.all()), *(kind.permits() for kind in KINDS.all())]


def modules_of(needs: Needs) -> list[str]:
    """What the lab imports later: for requests, and for all entries that the sandbox has room for."""
    return [*MODULES, *(module for one in declared() if needs.has_room_for(one) for module in one.modules)]


def check_room(needs: Needs, plan: GuestPlan) -> None:
    """ConfigError: a guest that comes later, for which there is no room in the sandbox."""
    kind = kind_of(plan)
    if not needs.has_room_for(kind.permits()):
        raise ConfigError(
            f"guest {plan.name}: a {kind.name}, for which this server's sandbox has no room; start it "
            "with one, or with --sandbox off"
        )
    for directory in map(os.path.dirname, plan.permits().listens):
        if not needs.listens_in(directory):
            raise ConfigError(
                f"guest {plan.name}: {directory} is outside this server's sandbox; give a socket beside "
                "the others, or start it with --sandbox-path or --sandbox off"
            )
