"""Tells a service manager how the service does: sd_notify(3), without a library."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Sends a state such as READY=1 to who started us with NOTIFY_SOCKET; to nobody where there is none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # of the abstract name space
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address)
