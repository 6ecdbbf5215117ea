from collections.abc import Callable
from typing import Any

from cdna.nic.device import Nic

__all__ = ["MAX_MULTICAST", "OPTIONS", "STORM_BURST"]

MAX_MULTICAST: int
STORM_BURST: int
STORM_BURST_S: float
OPTIONS: dict[str, Callable[[Nic, int, Any], None]]
