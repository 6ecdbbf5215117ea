"""Buffers that a guest fills or reads in place."""

from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class TxBuffer:
    """A free transmit buffer: write `data`, set `length`, submit. `number` is -1 from then on."""

    data: np.ndarray
    number: int
    length: int = 0


@dataclass(slots=True)
class RxBuffer:
    """A filled receive buffer: `data`, its completion `flags` (cdna.abi.CompletionFlag), the frame's VLAN.

    `number` is -1 once it was released.
    """

    data: np.ndarray
    number: int
    flags: int
    vlan: int
