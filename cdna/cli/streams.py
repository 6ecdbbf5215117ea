"""The standard streams of a command: descriptors 0 to 2 are taken for sure, and text is written whole.

A shell can start a command with one of them closed (`2>&-`). The next file or socket that is opened would get
its number, and messages would go into a capture file. Python leaves `sys.stderr` as None then, and
`print(file=None)` prints to standard output.
"""

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

from cdna.base.descriptors import write_patiently, write_whole

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FALLBACK = "utf-8"
STDOUT = "standard output"  # the file name in its errors


def prepare() -> None:
    """Takes the standard descriptors that are closed, and replaces `sys.stdout` and `sys.stderr`.

    To be called first in a program, before it opens anything.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:  # with O_PATH it cannot be read or written: programs started later find it closed
            taken = os.open(os.devnull, os.O_PATH)
            os.set_inheritable(taken, True)
    sys.stdout = _text(1, sys.stdout)
    sys.stderr = _text(2, sys.stderr)


def _text(fd: int, before: TextIO | None) -> TextIO:
    """A text stream on a standard descriptor, in the encoding that the interpreter has chosen for it."""
    encoding = getattr(before, "encoding", None) or FALLBACK
    raw = cast(BinaryIO, _Whole(fd))
    return io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=True)


class _Whole(io.RawIOBase):
    """A standard descriptor whose `write` writes everything, or raises OSError.

    On standard error it raises nothing, and waits half a second at most for the reader of a full pipe: a
    message that is not read neither ends nor holds up a lab, and the status says the same.
    There is no buffer behind it: what a failed or interrupted write leaves would be written again later.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer") -> int:
        if self._fd == 2:
            with suppress(OSError):
                write_patiently(self._fd, data, lambda: True)
            return memoryview(data).nbytes
        try:
            return write_whole(self._fd, data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, STDOUT) from None
