"""Switching checks off and planting flaws, in a test build (`ext/cdna/checks.h`)."""

import os

from cdna.control_checks import Control
from cdna.control_checks import off as _control_off
from cdna.errors import ConfigError

is_test_build = bool(CDNA_IS_TEST_BUILD)


def _number(enum, str name):
    if not is_test_build:
        raise ConfigError("checks can be switched off in a test build only: see docs/checks.md")
    try:
        return int(enum[name])
    except KeyError:
        raise ConfigError(f"{enum.__name__} {name!r}: see docs/checks.md for the names") from None


def _switch(str name, bint off):
    if is_test_build and name in Control.__members__:
        (_control_off.add if off else _control_off.discard)(Control[name])
    else:
        cdna_checks.off[<int>_number(Check, name)] = off


def off(*names):
    """Lets everything through these checks (of this process and its later children)."""
    for name in names:
        _switch(name, True)


def on(*names):
    """Makes these checks again; without names, all of them."""
    for name in names or [check.name for check in (*Check, *Control)]:
        _switch(name, False)


def plant(*names):
    """Has these words of a guest's memory read twice."""
    for name in names:
        cdna_checks.plant[<int>_number(Plant, name)] = 1


def found() -> dict:
    """How often each check has found something, in this process; those that have."""
    if not is_test_build:
        return {}
    return {check.name: cdna_checks.found[<int>check] for check in Check if cdna_checks.found[<int>check]}


def passed() -> dict:
    """How often each check would have found something, but was off."""
    if not is_test_build:
        return {}
    return {check.name: cdna_checks.passed[<int>check] for check in Check if cdna_checks.passed[<int>check]}


def steps() -> int:
    """Steps of the protocol that this process has made."""
    return cdna_checks.steps if is_test_build else 0


def kill_at(step):
    """Has this process kill itself at this step, counted from its start; 0: never."""
    if not is_test_build:
        raise ConfigError("steps are counted in a test build only: CDNA_VARIANT=checks")
    cdna_checks.kill_at = step


def step_words() -> tuple:
    """Where the count of steps lies, and the step to die at, in every process of a test build."""
    return <size_t>&cdna_checks.steps, <size_t>&cdna_checks.kill_at


def _from_environment():
    off(*filter(None, os.environ.get("CDNA_CHECKS_OFF", "").split(",")))
    plant(*filter(None, os.environ.get("CDNA_PLANTS", "").split(",")))
    if os.environ.get("CDNA_KILL_AT"):
        kill_at(int(os.environ["CDNA_KILL_AT"]))


if is_test_build:
    _from_environment()
