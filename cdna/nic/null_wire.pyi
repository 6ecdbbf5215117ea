from cdna.nic.traffic import Load
from cdna.nic.wire import Wire

class NullWire(Wire):
    check: Load | None
    def __init__(
        self, check: Load | None = None, *, flows: int = 0, line_rate: float | None = None
    ) -> None: ...
    @property
    def bad(self) -> int: ...
    @property
    def first_bad(self) -> str | None: ...

def check_rate(line_rate: float | None) -> float: ...
