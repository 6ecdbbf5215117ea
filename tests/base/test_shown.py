"""Text of others, as it is shown."""

import pytest

from cdna.base.shown import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web-1 'a' \"b\" \\n", "web-1 'a' \"b\" \\n"),
        ("\N{SNOWMAN} \N{GREEK SMALL LETTER ALPHA}", "\N{SNOWMAN} \N{GREEK SMALL LETTER ALPHA}"),
        ("a\nb\r\t\0\x7f", r"a\nb\r\t\x00\x7f"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b1m\x85", r"\x9b1m\x85"),
        ("\u202egpj.exe\u2066\u200b\ufeff", r"\u202egpj.exe\u2066\u200b\ufeff"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        (b"\xff/x".decode("utf-8", "surrogateescape"), r"\udcff/x"),
        ("\U000e0041", r"\U000e0041"),
        ("", ""),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown
    assert shown.isprintable()


def test_what_is_no_text() -> None:
    assert printable(OSError("a\nb")) == r"a\nb"
    assert printable(None) == "None"
