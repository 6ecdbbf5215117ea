from typing import Any

import numpy as np

from cdna.guest_driver.queues import Queues

class Mapping:
    size: int
    writable: bool
    def __init__(self, fd: int, writable: bool) -> None: ...
    def view(self) -> np.ndarray: ...
    @property
    def __array_interface__(self) -> dict[str, Any]: ...

class RemoteQueues(Queues):
    def __init__(
        self,
        fd: int,
        geometry: dict[str, Any],
        memory: Mapping,
        page: Mapping,
        rings: Mapping,
        buffer_size: int = 2048,
    ) -> None: ...
    def reap(self) -> None: ...
    @property
    def lost(self) -> int: ...
    @lost.setter
    def lost(self, number: int) -> None: ...
    @property
    def refused(self) -> tuple[int, int]: ...
