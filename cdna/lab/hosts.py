"""Names that resolve inside a lab: what /etc/hosts says there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdna.lab.namespace import Interface

HEADER = """\
# Written by cdna for what runs in this lab. Other names are resolved as outside.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
"""


def hosts_text(names: Iterable[tuple[str, Iterable[Interface]]]) -> str:
    """The text of hosts(5), with an entry for each address of each name."""
    lines = [f"{interface.ip}\t{name}\n" for name, interfaces in names for interface in interfaces]
    return HEADER + "".join(lines)
