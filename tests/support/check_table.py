"""The tables of docs/checks.md, made from the enumerations of names and their comments.

python -m tests.support.check_table writes them anew.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "checks.md"
NAMES = {  # by enumeration: its file, and the line that it begins with
    "Check": ("ext/cdna/checks.pxd", "cpdef enum Check:"),
    "Control": ("cdna/control_checks.py", "class Control(Enum):"),
    "Plant": ("ext/cdna/checks.pxd", "cpdef enum Plant:"),
}


def rows(enumeration: str) -> str:
    """A table a file for `Check` and `Control`, one for `Plant`."""
    path, begins = NAMES[enumeration]
    text = (ROOT / path).read_text().split(begins)[1].split("\n\n")[0]
    lines = []
    if enumeration == "Plant":
        lines += ["| name | what is read twice |", "|---|---|"]
    for line in text.splitlines()[1:]:
        if heading := re.fullmatch(r" +# (\S.*?): (.*)", line):
            files = ", ".join(f"`{name}`" for name in heading[1].split(", "))
            lines += ["", f"{files}: {heading[2]}", "", "| name | what it demands |", "|---|---|"]
        elif entry := re.fullmatch(r" +(\w+)(?: = auto\(\))? +# (.*)", line):
            lines.append(f"| `{entry[1]}` | {entry[2]} |")
        else:
            raise ValueError(f"{path}: {line!r} is neither a heading nor a name with its meaning")
    return "\n".join(lines).strip()


def page() -> str:
    """docs/checks.md as it has to be."""
    text = PAGE.read_text()
    for enumeration, (path, _) in NAMES.items():
        begin, end = f"<!-- {enumeration} of {path} -->", f"<!-- end of {enumeration} of {path} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{rows(enumeration)}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
