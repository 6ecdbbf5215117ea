"""Concurrent direct network access: a NIC of many contexts, each driven by one guest, and its VMM."""

from cdna.errors import CdnaError, ConfigError, ContextFault, Refused, ResourceError
from cdna.guest_driver.driver import Driver
from cdna.guest_driver.remote import RemoteDriver
from cdna.machine import Machine
from cdna.vmm.faults import FaultReport
from cdna.vmm.hypervisor import Context, Guest, Hypervisor
from cdna.vmm.policy import Policy
from cdna.vmm.server import Server
from cdna.vmm.settings import ContextSettings

__all__ = [
    "Machine",
    "Hypervisor",
    "Guest",
    "Context",
    "ContextSettings",
    "Driver",
    "RemoteDriver",
    "Server",
    "Policy",
    "FaultReport",
    "CdnaError",
    "ConfigError",
    "ResourceError",
    "Refused",
    "ContextFault",
]
