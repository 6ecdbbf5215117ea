"""The command `cdna`: the entry points, which import nothing before an interrupt is taken care of.

Importing a command line takes a tenth of a second. Until that is done an interrupt ends the process as it
ends any program, and Python's traceback would tell of nothing but an import. From then on it is a
KeyboardInterrupt, which `cdna.cli.program` turns into one line and status 130.
"""

from __future__ import annotations

import signal

TYPE_CHECKING = False  # as typing has it, whose import takes longer than all else here
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdna.cli.runners import Runners

__all__ = ["extcap", "main"]


def main(argv: Sequence[str] | None = None, runners: Runners | None = None) -> int:
    """Runs the command line and returns its exit status (`cdna.cli.exits`).

    argv: None: those of this process, of which this is the program. A test or a notebook gives others;
    signals and streams then stay as they are.
    """

    def program(ready: Callable[[], None]) -> int:
        from cdna.cli.program import run

        return run(argv, runners, ready)

    return _as_program(program) if argv is None else program(lambda: None)


def extcap() -> int:
    """Does what Wireshark asks for (`cdna.cli.wireshark`); returns the exit status."""

    def program(ready: Callable[[], None]) -> int:
        from cdna.cli.wireshark import main

        return main(None, ready)

    return _as_program(program)


def _as_program(run: Callable[[Callable[[], None]], int]) -> int:
    """Calls `run` and returns its exit status.

    SIGINT ends the process at once until `run` calls its argument; from then on it is a KeyboardInterrupt.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not ignored, nor somebody's

    def interrupts(handler: signal._HANDLER) -> None:
        if ours:
            signal.signal(signal.SIGINT, handler)

    interrupts(signal.SIG_DFL)
    try:
        return run(lambda: interrupts(signal.default_int_handler))
    except KeyboardInterrupt:  # between the end of the command and here
        return 128 + signal.SIGINT
    finally:
        interrupts(signal.SIG_DFL)  # an interrupt at the interpreter's end shows no traceback either
