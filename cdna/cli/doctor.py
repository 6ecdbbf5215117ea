"""`cdna doctor`: what this machine allows, what will be slower or missing, and what mends it."""

import json as json_format
from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from cdna.cli import output
from cdna.cli.exits import DONE

if TYPE_CHECKING:
    from cdna.doctor import Finding
    from cdna.report.style import Style

MEANING = 72  # columns
COLOURS = {"ok": "green", "slower": "yellow", "missing": "red"}


def doctor(
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write the findings as JSON.")] = None,
) -> int:
    """Report what this machine allows, what will be slower or missing, and the command that mends it."""
    from cdna.doctor import examine

    json_to = None if json is None else output.file_to_write("--json", json)
    parts = examine()
    writes: list[output.Write] = [partial(output.show, report_text(parts, output.style()))]
    if json_to is not None:
        writes.append(partial(output.write_file, "--json", json_to, report_json(parts)))
    output.write_all(writes)
    return DONE


def report_text(parts: "dict[str, list[Finding]]", style: "Style") -> str:
    """A table, and a line that counts."""
    from rich.text import Text

    table = style.table()
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", no_wrap=True)
    table.add_column("what it means, and what mends it", max_width=MEANING)
    findings = [finding for part in parts.values() for finding in part]
    for i, part in enumerate(parts.values()):
        if i:
            table.add_section()
        for finding in part:
            state = Text(finding.state, style=COLOURS[finding.state])
            table.add_row(finding.subject, state, finding.found, finding.meaning)
            if finding.mend is not None:
                table.add_row("", "", "", Text(finding.mend, style="bold", overflow="fold"))
    count = Counter(finding.state for finding in findings)
    return style.render(
        "", table, "", f"{count['ok']} ok, {count['slower']} slower, {count['missing']} missing"
    )


def report_json(parts: "dict[str, list[Finding]]") -> str:
    """{"host": {...}, "findings": [{"part", "subject", "state", "found", "meaning", "mend"}, ...]}"""
    from cdna.compare.hostinfo import host_facts

    findings = [{"part": part, **asdict(f)} for part, listed in parts.items() for f in listed]
    return json_format.dumps({"host": host_facts(), "findings": findings}, indent=2) + "\n"
