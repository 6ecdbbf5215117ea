"""The command line of `cdna`. A file a command; `run` turns every error that a user can cause into one line.

A command's module is imported when it is the one that was given, or for `--help`: `up` and `exec` have to
be single-threaded when they enter a user namespace, and numpy starts threads when it is imported.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import typer

from cdna.base.shown import printable
from cdna.cli import streams
from cdna.cli.exits import DONE, INTERRUPTED, USAGE, Interrupted
from cdna.cli.runners import Runners
from cdna.errors import BadSetting, CdnaError

__all__ = ["COMMANDS", "command_line", "run"]

# What typer raises for arguments that it cannot place: click's exception, or its own copy of it.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

# By name: the function of a command, or the typer.Typer of one that has commands of its own.
COMMANDS = {
    "serve": "cdna.cli.serve:serve",
    "up": "cdna.cli.up:up",
    "exec": "cdna.cli.exec:execute",
    "ctl": "cdna.cli.ctl:app",
    "top": "cdna.cli.top:top",
    "qemu": "cdna.cli.qemu:qemu",
    "capture": "cdna.cli.capture:capture",
    "doctor": "cdna.cli.doctor:doctor",
    "compare": "cdna.cli.compare:compare",
    "bench": "cdna.cli.bench:bench",
    "fuzz": "cdna.cli.fuzz:fuzz",
}
# exec: what follows the guest's name is another program's command line.
SETTINGS: dict[str, dict[str, Any]] = {"exec": {"allow_interspersed_args": False}}


def command_line(names: Iterable[str]) -> typer.Typer:
    """The command line with these commands."""
    app = typer.Typer(
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Concurrent direct network access: a NIC with a context for every guest, and what it replaces.",
    )
    app.callback()(_cdna)
    for name in names:
        module, _, attribute = COMMANDS[name].partition(":")
        command = getattr(import_module(module), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, context_settings=SETTINGS.get(name))(command)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from cdna.cli import output
        from cdna.version import __version__

        output.show(f"cdna {__version__}\n")
        raise typer.Exit


def _cdna(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def run(
    argv: Sequence[str] | None, runners: Runners | None = None, ready: Callable[[], None] = lambda: None
) -> int:
    """Runs the command line and returns its exit status (`cdna.cli.exits`). ready: called before the command.

    Whatever a user or the machine can cause ends in one line on standard error that says what would be
    right. Only a mistake in this package shows a traceback.
    """
    if argv is None:  # the program; a test or a notebook has streams of its own
        streams.prepare()
    arguments = list(sys.argv[1:] if argv is None else argv)
    typed = _to_complete()
    given = [name for name in (arguments if typed is None else typed)[:1] if name in COMMANDS]
    program = " ".join(["cdna", *given])
    if not arguments and typed is None:
        return _end(program, f"no command; give one of {', '.join(COMMANDS)} (cdna --help explains them)")
    try:
        app = command_line(given or COMMANDS)
        ready()
        status = app(arguments, prog_name="cdna", standalone_mode=False, obj=runners or Runners())
        return _end(program, "interrupted", INTERRUPTED) if status == INTERRUPTED else int(status or DONE)
    except _UsageError as error:
        path = getattr(getattr(error, "ctx", None), "command_path", program)  # of a command's command, too
        return _end(program, f"{_sentence(error)} ({path} --help shows what there is)")
    except BadSetting as error:
        return _end(program, f"--{error.setting.replace('_', '-')} {error.value}: {error.advice}")
    except CdnaError as error:
        return _end(program, str(error))
    except SystemExit as error:  # typer's: a reader of --help has left, or a shell has its completions
        broken = error.__context__
        return _failed(program, broken) if isinstance(broken, BrokenPipeError) else int(error.code or DONE)
    except OSError as error:
        return _failed(program, error)
    except MemoryError:
        return _end(program, "out of memory; free some, or give fewer guests")
    except (Interrupted, KeyboardInterrupt, typer.Abort) as error:
        return _end(program, str(error) or "interrupted", INTERRUPTED)


def _to_complete() -> list[str] | None:
    """The words so far, where a shell asks for completions of them. None: it is an ordinary run."""
    if "_CDNA_COMPLETE" not in os.environ:
        return None
    words = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""  # bash; the others
    return words.split()[1:]


def _failed(program: str, error: OSError) -> int:
    """Ends with the error's line; with DONE where the reader of standard output has seen enough."""
    if isinstance(error, BrokenPipeError) and error.filename == streams.STDOUT:
        return DONE
    reason = (error.filename, error.strerror or str(error))
    return _end(program, ": ".join(str(part) for part in reason if part))


def _end(program: str, message: str, status: int = USAGE) -> int:
    with suppress(OSError):  # without a reader, the status says it alone
        print(f"{program}: {printable(' '.join(message.split()))}", file=sys.stderr)
    return status


def _sentence(error: Exception) -> str:
    """The message of the argument parser in the shape of ours: lower case, no full stop."""
    text = str(getattr(error, "format_message", error.__str__)()).strip().rstrip(".")
    return text[:1].lower() + text[1:]
