from typing_extensions import Buffer

from cdna.nic.captured import CapturedFrames

class CaptureWalk:
    @property
    def frames(self) -> CapturedFrames: ...
    def feed(self, piece: Buffer, *, last: bool = False) -> int: ...
