"""Entering the sandbox: everything in its order, and what of it this kernel has."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Any

from cdna.errors import ResourceError
from cdna.sandbox import filter, landlock, privileges, trace
from cdna.sandbox.needs import Needs
from cdna.sandbox.threads import NUMBERS, every_thread


@dataclass(frozen=True)
class Entered:
    """What holds from now on, and what does not, each in a few words with the reason."""

    mode: str
    active: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.mode == "off":
            return "sandbox: off"
        lacks = f"; missing: {', '.join(self.missing)}" if self.missing else ""
        only = " (log only)" if self.mode == "log" else ""
        return f"sandbox{only}: {', '.join(self.active)}{lacks}"

    def as_dict(self) -> dict[str, Any]:
        return {"mode": self.mode, "active": list(self.active), "missing": list(self.missing)}


def enter(needs: Needs) -> Entered:
    """Leaves this process, with all its threads, what it needs and no more. There is no way back.

    Everything has been opened and imported by now. ResourceError: something that this kernel has was refused.
    """
    if needs.mode == "off":
        return Entered("off")
    active, missing = [], []
    traced = os.environ.get(trace.TO)
    mode = needs.mode if traced is None else "log"
    why_no_filter = filter.trouble()
    made = None if why_no_filter else filter.make_filter(needs.calls, log=mode == "log")
    privileges.set_limits()
    every, drop = [], privileges.Drop(needs.keep, needs.user)
    every += drop.calls
    version, why_no_landlock = landlock.abi()
    rules = -1
    if traced is not None:
        trace.begin(traced)
    try:
        if version and mode == "on":
            rules = landlock.ruleset(version, needs.allowed, abstract=needs.abstract)
            every.append((NUMBERS["landlock_restrict_self"], rules, 0))
        every_thread([*every, privileges.not_dumpable()])
        if made is not None:
            made.load()
    except OSError as error:
        raise ResourceError(f"no sandbox: {os.strerror(error.errno or errno.EIO)}; see --sandbox") from error
    finally:
        if rules >= 0:
            os.close(rules)
    if made is not None:
        active.append(f"seccomp ({filter.count(needs.calls)} system calls)")
    else:
        missing.append(f"seccomp: {why_no_filter}")
    if rules >= 0:
        active.append(f"Landlock {version}")
        missing += [f"Landlock of {what}" for what in landlock.lacks(version)]
    else:
        missing.append(f"Landlock: {why_no_landlock or 'not with --sandbox log'}")
    active.append("no new privileges")
    if needs.user is not None:
        active.append(f"user {needs.user.name}")
    active.append(f"capabilities {' '.join(privileges.names(drop.kept)) or 'none'}")
    return Entered(mode, tuple(active), tuple(missing))
