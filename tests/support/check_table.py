"""The tables of docs/checks.md, made from the enumerations in ext/cdna/checks.pxd and their comments.

python -m tests.support.check_table writes them anew.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "checks.md"
NAMES = ROOT / "ext" / "cdna" / "checks.pxd"
MARK = "<!-- {} of ext/cdna/checks.pxd -->"


def rows(enumeration: str) -> str:
    """A table a file for `Check`, one for `Plant`."""
    text = NAMES.read_text().split(f"cpdef enum {enumeration}:")[1].split("\n\n")[0]
    lines = []
    if enumeration == "Plant":
        lines += ["| name | what is read twice |", "|---|---|"]
    for line in text.splitlines()[1:]:
        if heading := re.fullmatch(r" +# (\S.*?): (.*)", line):
            files = ", ".join(f"`{name}`" for name in heading[1].split(", "))
            lines += ["", f"{files}: {heading[2]}", "", "| name | what it demands |", "|---|---|"]
        elif entry := re.fullmatch(r" +(\w+) +# (.*)", line):
            lines.append(f"| `{entry[1]}` | {entry[2]} |")
        else:
            raise ValueError(
                f"ext/cdna/checks.pxd: {line!r} is neither a heading nor a name with its meaning"
            )
    return "\n".join(lines).strip()


def page() -> str:
    """docs/checks.md as it has to be."""
    text = PAGE.read_text()
    for enumeration in ("Check", "Plant"):
        begin, end = MARK.format(enumeration), MARK.format("end of " + enumeration)
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{rows(enumeration)}\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
