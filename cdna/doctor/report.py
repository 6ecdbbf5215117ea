"""All checks, in the order of the report."""

from collections.abc import Callable, Mapping, Sequence

from cdna.doctor import machine, network, programs
from cdna.doctor.finding import Finding
from cdna.doctor.host import Host

Check = Callable[[Host], Finding | list[Finding]]

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
    "network": (
        network.network_namespaces,
        network.user_namespaces,
        network.taps,
        network.tap_offloads,
        network.af_packet,
        network.af_xdp,
    ),
    "programs": (programs.kvm, programs.qemu, programs.testpmd, programs.tools),
}


def examine(host: Host | None = None) -> dict[str, list[Finding]]:
    """Runs every check. Keys are the parts of the report, those of CHECKS."""
    host = host or Host()
    parts: dict[str, list[Finding]] = {}
    for part, checks in CHECKS.items():
        findings = parts.setdefault(part, [])
        for check in checks:
            found = check(host)
            findings += found if isinstance(found, list) else [found]
    return parts
