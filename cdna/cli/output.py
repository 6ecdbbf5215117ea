"""What a command writes. Files are looked at before the run, and written whole or not at all after it."""

import errno
import fcntl
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from cdna.cli import terminal
from cdna.errors import ResourceError
from cdna.report.style import Style

Write = Callable[[], object]

CLOSED = "standard output: closed; give a place to write to, such as /dev/null"


def style() -> Style:
    """How tables look on standard output: plain ASCII, 100 columns wide, unless it is a terminal."""
    if not is_terminal():
        return Style()
    width = terminal.size(sys.stdout.fileno()).columns
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    return Style(width=width, colour="NO_COLOR" not in os.environ, unicode=unicode)


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def show(text: str) -> bool:
    """Writes all of it to standard output. False: its reader has left. Raises `ResourceError`."""
    if sys.stdout is None:  # so Python says that it was closed
        raise ResourceError(CLOSED)
    encoding = sys.stdout.encoding or "ascii"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except OSError as error:
        _discard_stdout()
        if isinstance(error, BrokenPipeError):
            return False
        if error.errno == errno.EBADF:
            raise ResourceError(CLOSED) from None
        raise ResourceError(f"standard output: not written ({_reason(error)})") from None
    return True


def is_closed() -> bool:
    """Whether standard output was closed when this program started."""
    try:
        return sys.stdout is None or bool(fcntl.fcntl(sys.stdout.fileno(), fcntl.F_GETFL) & os.O_PATH)
    except ValueError:  # a notebook's or a test's has no descriptor
        return False
    except OSError:
        return True


def file_to_write(option: str, name: str, coming: Path | None = None) -> Path:
    """The file that an option names. Raises `ResourceError` if it can't be written when the run is over.

    `coming` is a directory that will have been made by then.
    """
    path = _path(option, name)
    if path.is_dir():
        raise ResourceError(f"{option} {name}: a directory; give the name of a file")
    if path.exists() and not path.is_file():  # a terminal, a pipe
        if not os.access(path, os.W_OK):
            raise ResourceError(f"{option} {name}: not writable; give the name of a file that is")
    elif coming is None or coming.exists() or path.parent != coming:
        _check_place(option, name, path.parent)
    return path


def directory_to_write(option: str, name: str) -> Path:
    """The directory that an option names, there or not. Raises `ResourceError` if it can't be written."""
    path = _path(option, name)
    if path.exists() and not path.is_dir():
        raise ResourceError(f"{option} {name}: not a directory; give the name of one, or a new name")
    _check_place(option, name, path if path.exists() else path.parent)
    return path


def _path(option: str, name: str) -> Path:
    if not name.strip() or "\0" in name:
        raise ResourceError(f"{option} '': no name; give one")
    path = Path(os.path.realpath(name))
    try:
        path.exists()
    except OSError as error:
        raise ResourceError(f"{option} {name}: {_reason(error)}; give another name") from None
    return path


def _check_place(option: str, name: str, directory: Path) -> None:
    if not directory.is_dir():
        raise ResourceError(f"{option} {name}: there is no directory {directory}; make it first")
    try:  # a trial answers for read-only file systems and quotas, too
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        reason = f"cannot write in {directory} ({_reason(error)})"
        raise ResourceError(f"{option} {name}: {reason}; give a place where you can") from None


def write_file(option: str, path: Path, text: str) -> None:
    """Puts `text` at `path`, in one step. Raises `ResourceError`, and then leaves what was there before."""
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
            return
        handle, name = tempfile.mkstemp(prefix=".cdna-", dir=path.parent)
        try:
            with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                os.fchmod(file.fileno(), _mode(path))
                file.write(text)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ResourceError(f"{option} {path}: not written ({_reason(error)}); give another place") from None


def write_directory(option: str, path: Path, files: Callable[[], dict[str, str]]) -> None:
    """Puts files into a directory, which is made if need be. Raises `ResourceError`."""
    new = not path.exists()
    texts = files()
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise ResourceError(f"{option} {path}: not made ({_reason(error)}); give another place") from None
    try:
        for name, text in texts.items():
            write_file(option, path / name, text)
    except BaseException:
        if new:
            for name in texts:
                (path / name).unlink(missing_ok=True)
            path.rmdir()
        raise


def write_all(writes: list[Write]) -> None:
    """Does all of them, then raises the first error: where one fails, the others may still be kept."""
    first: ResourceError | None = None
    for write in writes:
        try:
            write()
        except ResourceError as error:
            first = first or error
    if first is not None:
        raise first


def _mode(path: Path) -> int:
    """The mode of the file that is replaced, or what the umask leaves a new one."""
    if path.exists():
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _discard_stdout() -> None:
    """Keeps the interpreter from failing once more when it flushes at its end."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
