from collections.abc import Iterable

from cdna.nic.captured import CapturedFrames
from cdna.nic.queue_wire import QueueWire

class ReplayWire(QueueWire):
    def __init__(
        self,
        frames: CapturedFrames | Iterable[tuple[bytes, int]],
        *,
        loop: int = 1,
        recorded: bool = False,
        keep_sent: bool = True,
        depth: int = 1024,
    ) -> None: ...
    @property
    def frames(self) -> int: ...
    @property
    def done(self) -> bool: ...
