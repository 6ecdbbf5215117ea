"""From the text of an option to the setting of a plan. What a setting may be, the plan itself checks."""

import os
from collections.abc import Callable

from cdna.base.units import PROTECTIONS, STRATEGIES, parse_rate
from cdna.compare.plan import LINE_RATES, SIZES, check_line_rate, check_seconds
from cdna.errors import BadSetting

# pcapng's section header, then pcap with microseconds and nanoseconds, in either byte order.
_CAPTURE_MAGIC = {bytes.fromhex(m) for m in ("0a0d0d0a", "a1b2c3d4", "d4c3b2a1", "a1b23c4d", "4d3cb2a1")}


def words(text: str) -> tuple[str, ...]:
    """The parts of a list with commas; none of an empty text."""
    return tuple(word.strip() for word in text.split(",")) if text.strip() else ()


def integers(setting: str, text: str, advice: str) -> tuple[int, ...]:
    """A list of whole numbers. Raises `BadSetting`."""
    return tuple(integer(setting, word, advice) for word in words(text))


def integer(setting: str, text: str, advice: str) -> int:
    """A whole number in decimal digits. Raises `BadSetting`."""
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise BadSetting(setting, text, f"not a whole number; {advice}")
    return int(text)


def seconds(text: str) -> float:
    """A time in seconds. Raises `BadSetting`."""
    try:
        value = float(text)
    except ValueError:
        raise BadSetting("seconds", text, "not a number; give a time in seconds, e.g. 0.5") from None
    return _as_given(check_seconds, value, text)


def line_rate(text: str) -> float:
    """Bits a second, with K, M, G or T. Raises `BadSetting`."""
    try:
        rate = parse_rate(text)
    except ValueError:
        raise BadSetting("line_rate", text, f"not a rate; {LINE_RATES}") from None
    return _as_given(check_line_rate, rate, text)


def _as_given(check: Callable[[float], None], value: float, text: str) -> float:
    """The value, checked; an error quotes what the user wrote and not how Python would."""
    try:
        check(value)
    except BadSetting as error:
        raise BadSetting(error.setting, text, error.advice) from None
    return value


def protections(text: str) -> tuple[str, ...]:
    """A list of protection modes. Raises `BadSetting` for iommu without its strategy."""
    modes = words(text)
    for mode in modes:
        name, _, strategy = mode.partition(":")
        if name == "iommu" and strategy not in STRATEGIES:
            strategies = ", ".join(known for known in PROTECTIONS if known.startswith("iommu:"))
            raise BadSetting("protection", mode, f"iommu needs a strategy; give one of {strategies}")
    return modes


def size(text: str) -> int | str:
    """A number of bytes, "imix", or the path of a capture file that can be read. Raises `BadSetting`."""
    advice = f"{SIZES}, imix or a capture file"
    if text == "imix":
        return text
    if text.removeprefix("-").isdigit():
        return integer("size", text, advice)
    if not text or "\0" in text or not os.path.exists(text):
        raise BadSetting("size", text, f"no such file; {advice}")
    if not os.path.isfile(text):
        raise BadSetting("size", text, f"not a file; {advice}")
    try:
        with open(text, "rb") as capture:
            magic = capture.read(4)
    except OSError as error:
        raise BadSetting("size", text, f"cannot be read ({error.strerror}); {advice}") from None
    if magic not in _CAPTURE_MAGIC:
        raise BadSetting("size", text, "neither pcap nor pcapng; give a capture file of one of these kinds")
    return text
