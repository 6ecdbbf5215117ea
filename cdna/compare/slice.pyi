from typing import Any

from cdna.compare.host import Host
from cdna.machine import Machine

SLICE_SECONDS: float
DRAIN_SECONDS: float

class Slice:
    host: Host
    machine: Machine
    def __init__(self, machine: Machine, inline: bool) -> None: ...
    def run(self, seconds: float, warm_up: float, stop_fd: int | None = None) -> dict[str, Any]: ...
    def result(self) -> dict[str, Any]: ...
