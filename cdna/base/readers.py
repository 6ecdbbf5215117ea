"""From what an option or a file says to a value.

Each function takes where the value stood ("--rate", "lab.toml: [[guest]] 2, rate") and the value, as text or
as TOML has it, and raises ConfigError in one line that names both and what would be right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cdna.errors import ConfigError


def bad(where: str, value: object, advice: str) -> ConfigError:
    return ConfigError(f"{where} {_quoted(value)}: {advice}")


def _quoted(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return f"{text!r:.80}" if not text.isprintable() or not text.strip() else f"{text:.80}"


def whole(where: str, value: object, least: int, most: int) -> int:
    advice = f"give a whole number from {least} to {most}"
    if isinstance(value, str) and re.fullmatch("-?[0-9]{1,18}", value, re.ASCII):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise bad(where, value, advice)
    return value


def text(where: str, value: object) -> str:
    """A text that says something."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise bad(where, value, "give a text")
    return value


def one_of(where: str, value: object, known: Sequence[str]) -> str:
    if not isinstance(value, str) or value not in known:
        raise bad(where, value, f"give one of {', '.join(known)}")
    return value


def switch(where: str, value: object) -> bool:
    """On or off; true or false in a file."""
    if isinstance(value, bool):
        return value
    return one_of(where, value, ("on", "off")) == "on"


def words(where: str, value: object) -> list[str]:
    """A list of texts: TOML's, or one text with commas."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",")] if value.strip() else []
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise bad(where, value, "give a text, or a list of texts")
    return value
