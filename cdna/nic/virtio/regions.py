"""Parts of a guest's memory, as a frontend lends them: memory tables, and what they map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cdna.control_checks import Control, broken
from cdna.errors import ConfigError
from cdna.virtio import VirtioLimits

MOST = int(VirtioLimits.VIRTIO_MAX_REGIONS)  # regions of a table


class Mapping(NamedTuple):
    """A part of a memory file that is mapped: length, bytes of it, and size, of its file, in whole pages."""

    file: tuple[int, int]  # device and inode
    length: int
    size: int
    huge: bool  # of a hugetlbfs


class Region(NamedTuple):
    """A part of a guest's memory: bytes, and addresses in bytes. `offset`: where it begins in the file."""

    guest_addr: int
    size: int
    user_addr: int
    fd: int
    offset: int


def _overlap(a: int, a_size: int, b: int, b_size: int) -> bool:
    """Whether two ranges have a byte in common; none of them wraps around."""
    return a < b + b_size and b < a + a_size


def check_regions(regions: Sequence[Region]) -> None:
    """ConfigError: addresses that wrap around, or regions that overlap."""
    if broken(Control.CHECK_REGIONS_MANY, len(regions) > MOST):
        raise ConfigError(f"{len(regions)} memory regions: give up to {MOST}")
    for i, region in enumerate(regions):
        for start in (region.guest_addr, region.user_addr):
            fits = 0 < region.size <= (1 << 64) - 1 - start
            if not fits and broken(Control.CHECK_REGION_WRAPS, True):
                raise ConfigError(
                    f"memory region {i}: {region.size} bytes at {start:#x} are none, or wrap around"
                )
        for other in regions[:i]:
            if _overlap(region.guest_addr, region.size, other.guest_addr, other.size) and broken(
                Control.CHECK_REGION_GUEST, True
            ):
                raise ConfigError(
                    f"memory region {i}: guest address {region.guest_addr:#x} is in another region"
                )
            if _overlap(region.user_addr, region.size, other.user_addr, other.size) and broken(
                Control.CHECK_REGION_USER, True
            ):
                raise ConfigError(
                    f"memory region {i}: user address {region.user_addr:#x} is in another region"
                )


class Account(Protocol):
    """Counts the mappings of one guest, and refuses those that are too much (ConfigError)."""

    def take(self, what: str, mapping: Mapping, held: int) -> None: ...
    def give(self, mapping: Mapping) -> None: ...


Mapped = tuple[int, int, int, int, Mapping | None]  # a region's mapping, as `GuestMapping` keeps it
