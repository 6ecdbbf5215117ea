"""The area in which a backend notes what it has begun, kept by the frontend while the backend is restarted.

One region a queue, each of 64-byte lines, one after the other ("Inflight I/O tracking"):

    +------------------+---------------------------+
    | head, 16 or 32   | an entry a descriptor     |      split: 16 bytes each, packed: 32
    +------------------+---------------------------+
"""

from __future__ import annotations

import os

from cdna.control_checks import Control, broken
from cdna.errors import ConfigError
from cdna.virtio import VirtioLimits

LINE = 64
SPLIT_ENTRY = 16  # bytes; of the head, too
PACKED_ENTRY = 32


def area_size(queues: int, queue_size: int, packed: bool) -> int:
    """Bytes for so many queues."""
    entry = PACKED_ENTRY if packed else SPLIT_ENTRY
    region = entry * (1 + queue_size)
    return queues * -(-region // LINE) * LINE


def check_shape(queues: int, queue_size: int, most: int) -> None:
    """ConfigError: no area of a device with `most` queues."""
    fits = 1 <= queues <= most and 1 <= queue_size <= VirtioLimits.VIRTIO_MAX_RING
    if broken(Control.CHECK_INFLIGHT_SHAPE, not fits):
        raise ConfigError(
            f"an inflight area of {queues} queues of {queue_size}: this device has {most}, of up to "
            f"{VirtioLimits.VIRTIO_MAX_RING}"
        )


def make_area(size: int) -> int:
    """A memory file of zeros, the caller's."""
    fd = os.memfd_create("cdna-inflight", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        raise
    return fd
