"""What is shown while a run goes on."""

import io

from rich.console import Console

from cdna.cli.progress import Display
from cdna.progress import Progress


def test_bar_on_a_terminal() -> None:
    out = io.StringIO()
    with Display[str]("cdna x", str, Console(file=out, force_terminal=True, width=100)) as display:
        display(Progress(3, 12, "rx, 8 guests, bridge copy"))
        shown = out.getvalue()
        display(Progress(4, 12, "rx, 8 guests, bridge copy", ("a row",)))
    assert "rx, 8 guests, bridge copy" in shown
    assert "3/12" in shown
    assert "4/12" in out.getvalue()
    assert "a row" not in out.getvalue()
    assert display.finished == ["a row"]


def test_lines_elsewhere() -> None:
    out = io.StringIO()
    with Display[str]("cdna x", str, Console(file=out, width=30)) as display:
        display(Progress(1, 4, "first"))
        display(Progress(2, 4, "second", ("[1] a row that is longer than the line", "another")))
    assert out.getvalue() == "cdna x:  50%  [1] a row that is longer than the line\ncdna x:  50%  another\n"
