"""Capture files that are replayed: pcap and pcapng as bytes, then their frames through a NIC.

input:  the file
"""

from __future__ import annotations

import os

from cdna import Machine
from cdna.errors import ConfigError
from cdna.nic.capture import read_capture
from cdna.nic.replay import ReplayWire

_fd = -1


def set_up() -> None:
    global _fd
    if _fd < 0:
        _fd = os.memfd_create("capture", os.MFD_CLOEXEC)


def run(data: bytes) -> None:
    """One input. Any exception but ConfigError is a finding."""
    set_up()
    os.ftruncate(_fd, 0)
    os.pwrite(_fd, data, 0)
    try:
        frames = read_capture(f"/proc/self/fd/{_fd}")
    except ConfigError as error:
        if not str(error):
            raise AssertionError("an error that does not say what is wrong") from None
        return
    wire = ReplayWire([(frame.data, frame.timestamp_ns) for frame in frames], keep_sent=False)
    machine = Machine(1 << 16, wire=wire, contexts=1, max_ring=8)
    try:
        machine.attach("guest", tx_ring=8, rx_ring=8, promiscuous=True, buffer_size=512)
        machine.step(2 + len(frames) // 32)
        assert wire.done, "frames that were not replayed"
        assert machine.wire.stats()["rx_frames"] == len(frames)
    finally:
        machine.close()
