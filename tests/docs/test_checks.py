"""docs/checks.md names every check, and what it demands, as the source does."""

import re

from tests.support.check_table import PAGE, ROOT, page, rows


def test_the_page_has_the_checks_of_the_source() -> None:
    assert PAGE.read_text() == page(), "python -m tests.support.check_table writes it anew"


def test_each_check_of_control_is_made_where_the_page_says() -> None:
    sections = re.split(r"^(?=`\w+/)", rows("Control"), flags=re.M)
    for heading, lines in (section.split("\n", 1) for section in sections if section):
        text = "".join((ROOT / name).read_text() for name in re.findall(r"`([^`]+)`", heading))
        for name in re.findall(r"^\| `(\w+)`", lines, re.M):
            assert re.search(rf"\bbroken\(\s*Control\.{name}\b", text), f"{heading} has no {name}"
