from cdna.nic.wire import Wire

class LoopbackWire(Wire):
    def __init__(self, *, offloads: int = 0) -> None: ...
