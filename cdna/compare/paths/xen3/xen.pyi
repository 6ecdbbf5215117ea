from typing import Any

from cdna.compare.host import Host
from cdna.compare.paths.xen3.domain import Hypervisor
from cdna.guest_driver.queues import Queues
from cdna.memory import Memory
from cdna.nic.generator import GeneratorWire
from cdna.nic.traffic import Load

SPARE_PAGES: int
HEAP_PAGES: int
RX_PAGES: int
GRANT_ENTRIES: int
AGEING_SECONDS: float
FDB_ENTRIES: int
FIRST_DOMID: int

class XenBridge:
    hypervisor: Hypervisor
    load: Load
    guests: int
    flip: bool
    closed: bool
    def __init__(
        self,
        memory: Memory,
        host: Host,
        nic: Queues,
        load: Load,
        *,
        guests: int,
        macs: list[bytes],
        peer: bytes,
        domid: int,
        transmit: bool,
        receive: str = "flip",
        pending: int = 1024,
        targets: list[bytes] | None = None,
        rx_flows: list[int] | None = None,
    ) -> None: ...
    def attach_generator(self, wire: GeneratorWire, window: int = 256) -> None: ...
    def guest_stats(self, guest: int) -> dict[str, Any]: ...
    def counts(self) -> dict[str, int]: ...
    def bad_frames(self) -> dict[str, int]: ...
    def close(self) -> None: ...
