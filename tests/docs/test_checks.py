"""docs/checks.md names every check, and what it demands, as the source does."""

from tests.support.check_table import PAGE, page


def test_the_page_has_the_checks_of_the_source() -> None:
    assert PAGE.read_text() == page(), "python -m tests.support.check_table writes it anew"
