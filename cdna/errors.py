"""The exceptions of this package: each says what is wrong, where, and what would be right."""

from collections.abc import Iterable
from operator import index
from typing import SupportsIndex


class CdnaError(Exception):
    """Base of all errors that a user can cause. The command line prints it as one line and exits with 2."""


class ConfigError(CdnaError, ValueError):
    """A setting that cannot be: an unknown wire, a ring size that is no power of two, a MAC address twice."""


class BadSetting(ConfigError):
    """A setting that cannot be: its name, what was given, and what would be right."""

    def __init__(self, setting: str, value: object, advice: str) -> None:
        self.setting = setting
        self.value = "''" if value == "" else value
        super().__init__(f"{setting} {self.value}: {advice}")
        self.advice = advice


class ResourceError(CdnaError, RuntimeError):
    """Something that this machine or this NIC has no more of: pages, contexts, permission, a device."""


class Refused(CdnaError):
    """The VMM refused a hypercall. `reason` is a `cdna.abi.Refusal`, `index` the request in the batch."""

    def __init__(self, message: str, reason: int, index: int | None = None, page: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.index = index
        self.page = page


class ContextFault(CdnaError):
    """The NIC stopped a context. `report` is the `FaultReport` that says why."""

    def __init__(self, message: str, report: object) -> None:
        super().__init__(message)
        self.report = report


class WrongFrame(CdnaError):
    """A benchmark's receiver got a frame that was not what had been sent."""


def known(what: str, names: Iterable[str], those: Iterable[str]) -> None:
    """Check that each of `names` is one of `those`. ConfigError: which is not, and which there are."""
    there = list(those)
    for name in names:
        if name not in there:
            raise ConfigError(f"{what} {name!r:.80}: give some of {', '.join(there)}")


def switch(name: str, value: object) -> bool:
    """True or False, also as 1 or 0. ConfigError: it is neither, such as "off"."""
    if isinstance(value, SupportsIndex) and index(value) in (0, 1):
        return bool(index(value))
    raise ConfigError(f"{name} {value!r:.80}: give True or False")


def whole(name: str, value: object, least: int, most: int) -> int:
    """A whole number in a range, also one of numpy's. ConfigError: it is none, or out of the range."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise ConfigError(f"{name} {value!r}: give a whole number")
    number = index(value)
    if not least <= number <= most:
        raise ConfigError(f"{name} {number}: give {least} to {most}")
    return number
