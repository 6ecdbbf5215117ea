"""Archives in cpio's "newc" format, which the kernel unpacks as its first root file system.

Linux, Documentation/driver-api/early-userspace/buffer-format.rst:

    entry    "070701", 13 numbers of 8 hexadecimal digits, the name, NUL, padding to 4 bytes,
             the content (of a link: its target), padding to 4 bytes
    the last entry is called "TRAILER!!!"
"""

from __future__ import annotations

import stat

DIRECTORY, PROGRAM, FILE, LINK = (
    stat.S_IFDIR | 0o755,
    stat.S_IFREG | 0o755,
    stat.S_IFREG | 0o644,
    stat.S_IFLNK | 0o777,
)


class Archive:
    """An archive that is filled in memory. A name has no leading slash; parents are made as needed."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._names: set[str] = set()

    def add(self, name: str, content: bytes = b"", mode: int = FILE) -> None:
        """Adds a file, a link (whose content is its target) or a directory, unless the name is there."""
        if name in self._names:
            return
        parent = name.rpartition("/")[0]
        if parent:
            self.add(parent, mode=DIRECTORY)
        self._names.add(name)
        self._entry(name, content, mode)

    def finish(self) -> bytes:
        """The archive."""
        self._entry("TRAILER!!!", b"", 0)
        return b"".join(self._parts)

    def _entry(self, name: str, content: bytes, mode: int) -> None:
        encoded = name.encode() + b"\0"
        inode = len(self._parts) + 1 if mode else 0
        links = 2 if stat.S_ISDIR(mode) else 1
        # inode mode uid gid links mtime size, device and rdev (major, minor), length of the name, checksum
        numbers = (inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        head = b"070701" + b"".join(b"%08x" % number for number in numbers) + encoded
        self._parts.append(_padded(head) + _padded(content))


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
