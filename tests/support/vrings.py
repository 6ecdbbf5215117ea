"""Virtqueues as a driver sees them, for tests, are the package's own."""

from cdna.guest_driver.vrings import (
    MAPPED,
    Buffer,
    GuestMemory,
    MemoryRegion,
    PackedRing,
    SplitRing,
    Used,
    Vring,
)

__all__ = ["MAPPED", "Buffer", "GuestMemory", "MemoryRegion", "PackedRing", "SplitRing", "Used", "Vring"]
