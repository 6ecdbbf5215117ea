from cdna.compare.host import Host
from cdna.memory import Memory

class Hypervisor:
    memory: Memory
    def __init__(self, memory: Memory, host: Host | None = None, heap_pages: int = 0) -> None: ...
    def add_domain(
        self,
        domid: int,
        pages: int,
        empty_pfns: int = 0,
        grant_entries: int = 512,
        maptracks: int = 0,
        ports: int = 64,
        headroom: int = 0,
    ) -> int: ...
    def release(self) -> None: ...
