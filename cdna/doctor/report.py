"""All checks in the order of the report: those of kinds of guests, of wires, of the machine itself."""

from collections.abc import Mapping, Sequence

from cdna.doctor import machine, network, programs
from cdna.extend.finding import Finding
from cdna.extend.host import Check, Host
from cdna.lab.kinds import KINDS
from cdna.nic.wires import WIRES

CHECKS: Mapping[str, Sequence[Check]] = {
    "machine": (
        machine.kernel,
        machine.modules,
        machine.cores,
        machine.smt,
        machine.isolated,
        machine.governor,
        machine.huge_pages,
        machine.sealing,
        machine.sandbox,
        machine.io_uring,
        machine.socket_buffers,
        machine.locked_memory,
    ),
    "network": (network.af_xdp,),
    "programs": (programs.tools,),
}


def checks_of(part: str) -> list[Check]:
    """The checks of a part of the report."""
    wires = [check for wire in WIRES.all() for check in wire.checks] if part == "network" else []
    return [*(check for kind in KINDS.all() for check in kind.checks.get(part, ())), *wires, *CHECKS[part]]


def examine(host: Host | None = None) -> dict[str, list[Finding]]:
    """Runs every check. Keys are the parts of the report, those of CHECKS."""
    host = host or Host()
    parts: dict[str, list[Finding]] = {}
    for part in CHECKS:
        findings = parts.setdefault(part, [])
        for check in checks_of(part):
            found = check(host)
            findings += found if isinstance(found, list) else [found]
    return parts
