"""Ranges of what a context or a wire can be given, checked where the NIC takes it."""

from __future__ import annotations

from operator import index as whole_number
from typing import Any

from cdna.abi import Limits, Takes
from cdna.errors import ConfigError, whole


def check_ring_size(name: str, size: Any, limit: int = Limits.MAX_RING) -> None:
    if whole_number(size) & (size - 1) or not Limits.MIN_RING <= size <= limit:
        raise ConfigError(
            f"{name} of {size} descriptors: give a power of two from {int(Limits.MIN_RING)} to {int(limit)}"
        )


def check_coalesce(value: Any) -> tuple[int, float]:
    """(descriptors, microseconds) of interrupt moderation; the time ends where that of ethtool -C does."""
    try:
        frames, us = value
        possible = 1 <= frames <= Limits.MAX_RING and 0 <= us < 1 << 32
    except (TypeError, ValueError):
        possible = False
    if not possible:
        raise ConfigError(
            f"interrupt moderation {value!r}: give descriptors from 1 to {int(Limits.MAX_RING)}, "
            "and microseconds below 2**32"
        )
    return frames, us


def check_takes(value: object, vnet_header: bool) -> int:
    """A sum of `abi.Takes`, of a context whose frames have a virtio-net header, or have none."""
    takes = whole("takes", value, 0, sum(Takes))
    if takes and not vnet_header:
        raise ConfigError("takes: only a context with vnet_header=True is given frames with work left to do")
    if takes and not takes & Takes.TAKES_CSUM:
        raise ConfigError("takes: large frames lack their checksums, so add Takes.TAKES_CSUM")
    return takes
