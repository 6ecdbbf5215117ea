from cdna.nic.wire import Wire

class WatchedWire(Wire):
    def look(self) -> bool: ...
