"""Facts about the machine that a result was measured on."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cdna.version import __version__

_CPU = Path("/sys/devices/system/cpu")


def host_facts(
    *, tsc_mhz: float | None = None, host_core: int | None = None, nic_core: int | None = None
) -> dict[str, Any]:
    """What a reader needs to judge the figures; a fact that this machine does not tell is left out.

    tsc_mhz: rate of the cycle counter in MHz, as measured; host_core, nic_core: numbers of the cores that
    ran the domains and the NIC engine.
    """
    facts = {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "host_core": host_core,
        "nic_core": nic_core,
        "tsc_mhz": None if tsc_mhz is None else round(tsc_mhz, 1),
        "governor": _read(_CPU / f"cpu{host_core or 0}" / "cpufreq" / "scaling_governor"),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "virtualized": _is_virtual_machine(),
        "python": platform.python_version(),
        "cdna": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return {name: fact for name, fact in facts.items() if fact is not None}


def cpu_model() -> str:
    """The processor's name for itself, or the architecture."""
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _is_virtual_machine() -> bool | None:
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("flags"):
            return "hypervisor" in line.split()
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
