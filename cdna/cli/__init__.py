"""The command `cdna`. A file a command; `main` turns every error that a user can cause into one line."""

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from cdna.cli import bench, compare
from cdna.cli.exits import DONE, INTERRUPTED, USAGE, Interrupted
from cdna.cli.runners import Runners
from cdna.compare.hostinfo import cdna_version
from cdna.compare.plan import BadSetting
from cdna.errors import CdnaError

__all__ = ["main"]

# What typer raises for arguments that it cannot place: click's exception, or its own copy of it.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Concurrent direct network access: a NIC with a context for every guest, and what it replaces.",
)
COMMANDS: dict[str, Callable[..., int]] = {"compare": compare.compare, "bench": bench.bench}
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"cdna {cdna_version()}")
        raise typer.Exit


@app.callback()
def _cdna(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(argv: Sequence[str] | None = None, runners: Runners | None = None) -> int:
    """Runs the command line and returns its exit status (`cdna.cli.exits`).

    Whatever a user or the machine can cause ends in one line on standard error that says what would be
    right. Only a mistake in this package shows a traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    program = " ".join(["cdna", *(name for name in arguments[:1] if name in COMMANDS)])
    if not arguments:
        return _end(program, f"no command; give one of {', '.join(COMMANDS)} (cdna --help explains them)")
    try:
        status = app(arguments, prog_name="cdna", standalone_mode=False, obj=runners or Runners())
        return _end(program, "interrupted", INTERRUPTED) if status == INTERRUPTED else int(status or DONE)
    except _UsageError as error:
        return _end(program, f"{_sentence(error)} ({program} --help shows what there is)")
    except BadSetting as error:
        return _end(program, f"--{error.setting.replace('_', '-')} {error.value}: {error.advice}")
    except CdnaError as error:
        return _end(program, str(error))
    except OSError as error:
        reason = (error.filename, error.strerror or str(error))
        return _end(program, ": ".join(str(part) for part in reason if part))
    except MemoryError:
        return _end(program, "out of memory; free some, or give fewer guests")
    except (Interrupted, KeyboardInterrupt, typer.Abort) as error:
        return _end(program, str(error) or "interrupted", INTERRUPTED)


def _end(program: str, message: str, status: int = USAGE) -> int:
    print(f"{program}: {' '.join(message.split())}", file=sys.stderr)
    return status


def _sentence(error: Exception) -> str:
    """The message of the argument parser in the shape of ours: lower case, no full stop."""
    text = str(getattr(error, "format_message", error.__str__)()).strip().rstrip(".")
    return text[:1].lower() + text[1:]
