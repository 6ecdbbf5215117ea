"""What the operator writes: the TOML of `cdna up` and `cdna serve`, and settings on the command line.

input:  what it is | text
"""

from __future__ import annotations

import tomllib

from cdna.errors import ConfigError, ResourceError
from cdna.lab import guest_plans, plan, plan_file, values


def _file(text: str) -> None:
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError):  # what `read_plan` makes a ConfigError of
        return
    plan_file.plan_from("lab.toml", table)


def _context(text: str) -> None:
    settings = guest_plans.context_settings("--context", text)
    guest_plans.guest_plan("--context: ", settings, {}, plan.NETS)


def _net(text: str) -> None:
    nets = values.nets("--net", text)
    plan.with_addresses([], nets, plan.host_addresses(nets))


def _addresses(text: str) -> None:
    values.addresses("--host", text, plan.NETS)


TEXTS = (_file, _file, _context, _net, _addresses)


def set_up() -> None:
    """Nothing is needed."""


def run(data: bytes) -> None:
    """One input. Any exception but the documented ones is a finding."""
    if not data:
        return
    try:
        TEXTS[data[0] % len(TEXTS)](data[1:].decode(errors="replace"))
    except (ConfigError, ResourceError) as error:
        if len(str(error).splitlines()) != 1:
            raise AssertionError(f"an error is one line: {str(error)!r}") from None
