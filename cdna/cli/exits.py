"""How a command ends."""

from collections.abc import Callable
from typing import NoReturn, TypeVar

from cdna.errors import CdnaError

DONE = 0
LOST = 1  # measured, but frames went missing, so the figures do not count
USAGE = 2  # not measured or not written; a line on standard error says why and what would be right
INTERRUPTED = 130

Result = TypeVar("Result")


class Interrupted(Exception):
    """The user has stopped the run; the message says what was kept."""


def until_stopped(
    run: Callable[[], Result], so_far: Callable[[], Result]
) -> tuple[Result, BaseException | None]:
    """What `run` returns; or, when it is interrupted or fails, what there is so far, and the reason."""
    try:
        return run(), None
    except (KeyboardInterrupt, CdnaError, OSError, MemoryError) as error:
        return so_far(), error


def stop(reason: BaseException, rows: int) -> NoReturn:
    """Raises the reason of a run that stopped early; an interrupt with a word on what became of it."""
    if isinstance(reason, KeyboardInterrupt):
        raise Interrupted(f"interrupted; {rows} finished rows are shown, no file was written") from None
    raise reason
