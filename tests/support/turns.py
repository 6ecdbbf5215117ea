"""A server's loop, looked at between two of its turns."""

from cdna.base.loop import Loop


def due(server: Loop) -> list[float]:
    """When it has something to do, by its clock."""
    with server.lock:
        return list(server.due())
