"""Capture files that are replayed: pcap and pcapng as bytes, then their frames through a NIC.

input:  the file
"""

from __future__ import annotations

import os

from cdna import Machine
from cdna.errors import ConfigError
from cdna.nic.capture import read_capture
from cdna.nic.capture_walk import CaptureWalk
from cdna.nic.captured import CapturedFrames
from cdna.nic.replay import ReplayWire

PIECE = 13  # bytes
GZIP = b"\x1f\x8b"

_fd = -1


def set_up() -> None:
    global _fd
    if _fd < 0:
        _fd = os.memfd_create("capture", os.MFD_CLOEXEC)


def _in_pieces(data: bytes) -> CapturedFrames:
    walk = CaptureWalk()
    waiting = bytearray()
    for at in range(0, len(data), PIECE):
        waiting += data[at : at + PIECE]
        del waiting[: walk.feed(waiting)]
    walk.feed(waiting, last=True)
    return walk.frames


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
    if data[:2] != GZIP:
        assert list(_in_pieces(data)) == list(frames), "the same bytes in pieces are other frames"
    due = [frames.due_ns(i) for i in range(len(frames))]
    assert due == sorted(due), "a replay that would go back in time"
    wire = ReplayWire(frames, keep_sent=False)
    machine = Machine(1 << 16, wire=wire, contexts=1, max_ring=8)
    try:
        machine.attach("guest", tx_ring=8, rx_ring=8, promiscuous=True, buffer_size=512)
        machine.step(2 + len(frames) // 32)
        assert wire.done, "frames that were not replayed"
        assert machine.wire.stats()["rx_frames"] == len(frames)
    finally:
        machine.close()
