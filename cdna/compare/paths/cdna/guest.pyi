from cdna.compare.host import Host
from cdna.guests.synthetic import SyntheticGuest
from cdna.nic.generator import GeneratorWire

class CdnaGuest:
    synthetic: SyntheticGuest
    def __init__(
        self, host: Host, synthetic: SyntheticGuest, wire: GeneratorWire | None = None, flow: int = 0
    ) -> None: ...
