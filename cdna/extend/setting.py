"""A setting that text can give: an option, a key of a plan file, NAME=VALUE of `cdna ctl set`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Read = Callable[[str, object], Any]


@dataclass(frozen=True)
class Setting:
    """One setting, declared once.

    read: from where a value stood and the value, as text or as TOML has it, to what the plan has; raises
    ConfigError in one line that names both. form, help: of an option. field: of the plan; "" is the name.
    live: a guest that runs can change it. shared: [defaults] and the options of `cdna up` can give it.
    several: an option can give it more than once. local: what the client of a server makes of it first.
    """

    name: str
    read: Read
    form: str = ""
    help: str = ""
    field: str = ""
    live: bool = False
    shared: bool = False
    several: bool = False
    local: Callable[[str, Any], Any] | None = None
