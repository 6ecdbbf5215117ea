"""What a worker is about to do, in a file that outlives it: the case that a process died of.

0        8                 8 + length
length | JSON of the case |
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

from cdna.fuzz.campaign import Case

_HEAD = struct.Struct("<Q")
LARGEST = 16 << 20  # bytes of a case


class JournalFile:
    """Called with a case, keeps it. One write, so what is read is a whole case."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __call__(self, case: Case) -> None:
        text = json.dumps(case).encode()
        os.pwrite(self._fd, _HEAD.pack(len(text)) + text, 0)

    def close(self) -> None:
        os.close(self._fd)


def last_case(path: str | os.PathLike[str]) -> Case | None:
    """The case that was begun last; None: none was."""
    data = Path(path).read_bytes() if os.path.exists(path) else b""
    if len(data) < _HEAD.size:
        return None
    (length,) = _HEAD.unpack_from(data)
    try:
        case: Case = json.loads(data[_HEAD.size : _HEAD.size + min(length, LARGEST)])
    except ValueError:  # it died in the middle of the write
        return None
    return case
