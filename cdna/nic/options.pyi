from collections.abc import Callable
from typing import Any

from cdna.nic.device import Nic

__all__ = ["MAX_MULTICAST", "OPTIONS"]

MAX_MULTICAST: int
OPTIONS: dict[str, Callable[[Nic, int, Any], None]]
