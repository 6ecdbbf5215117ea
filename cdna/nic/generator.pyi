from cdna.nic.device import Nic
from cdna.nic.null_wire import NullWire
from cdna.nic.traffic import Load

class GeneratorWire(NullWire):
    load: Load
    limit: int
    def __init__(
        self,
        load: Load,
        *,
        max_flows: int = 64,
        limit: int = 0,
        check: Load | None = None,
        check_flows: int = 0,
        line_rate: float | None = None,
    ) -> None: ...
    def add_flow(
        self,
        dst_mac: bytes,
        src_mac: bytes,
        *,
        window: int,
        context: int = 0,
        buffer_size: int = 2048,
        flow: int | None = None,
    ) -> int: ...
    def follow(self, nic: Nic) -> None: ...
    def sent(self, flow: int) -> int: ...
    @property
    def done(self) -> bool: ...
    def stop(self) -> None: ...
    def start(self) -> None: ...

def check_context(nic: Nic, context: int) -> None: ...
