"""Concurrent direct network access: a NIC of many contexts, each driven by one guest, and its VMM."""

from cdna.errors import CdnaError, ConfigError, ContextFault, Refused, ResourceError
from cdna.guest_driver.driver import Driver
from cdna.machine import Machine
from cdna.vmm.hypervisor import Context, FaultReport, Guest, Hypervisor
from cdna.vmm.settings import ContextSettings

__all__ = [
    "Machine",
    "Hypervisor",
    "Guest",
    "Context",
    "ContextSettings",
    "Driver",
    "FaultReport",
    "CdnaError",
    "ConfigError",
    "ResourceError",
    "Refused",
    "ContextFault",
]
