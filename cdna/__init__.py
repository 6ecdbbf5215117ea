"""Concurrent direct network access: a NIC of many contexts, each driven by one guest, and its VMM.

The names below are imported when they are used: what a program does not need costs it nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, whose import takes longer than all else here
if TYPE_CHECKING:
    from typing import Any

    from cdna.errors import CdnaError, ConfigError, ContextFault, Refused, ResourceError
    from cdna.faults import FaultReport
    from cdna.guest_driver.remote import RemoteDriver
    from cdna.guests.driver import Driver
    from cdna.guests.scapy_guests import scapy_guests
    from cdna.guests.scapy_socket import ScapyL3Socket, ScapySocket
    from cdna.machine import Machine
    from cdna.settings import ContextSettings
    from cdna.version import __version__
    from cdna.vmm.domain import Context, Guest
    from cdna.vmm.hypervisor import Hypervisor
    from cdna.vmm.policy import Policy
    from cdna.vmm.server import Server

__all__ = [
    "__version__",
    "Machine",
    "Hypervisor",
    "Guest",
    "Context",
    "ContextSettings",
    "Driver",
    "RemoteDriver",
    "ScapySocket",
    "ScapyL3Socket",
    "scapy_guests",
    "Server",
    "Policy",
    "FaultReport",
    "CdnaError",
    "ConfigError",
    "ResourceError",
    "Refused",
    "ContextFault",
]

_MODULES = {
    "cdna.version": ("__version__",),
    "cdna.machine": ("Machine",),
    "cdna.vmm.hypervisor": ("Hypervisor",),
    "cdna.vmm.domain": ("Guest", "Context"),
    "cdna.settings": ("ContextSettings",),
    "cdna.guests.driver": ("Driver",),
    "cdna.guest_driver.remote": ("RemoteDriver",),
    "cdna.guests.scapy_socket": ("ScapySocket", "ScapyL3Socket"),
    "cdna.guests.scapy_guests": ("scapy_guests",),
    "cdna.vmm.server": ("Server",),
    "cdna.vmm.policy": ("Policy",),
    "cdna.faults": ("FaultReport",),
    "cdna.errors": ("CdnaError", "ConfigError", "ResourceError", "Refused", "ContextFault"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
