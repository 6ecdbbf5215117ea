"""Text that a guest, a frontend or a client has chosen, made fit to be shown: one line, no terminal escapes.

What shows such text calls `printable`: the log (`cdna.logs`), tables (`cdna.report.style`), lines on a
terminal (`cdna.cli`), the labels of metrics. Each format then adds its own quotes.
"""


def printable(text: object) -> str:
    r"""Return the text with what is not printable written out, as Python does: a\x1b[2J, a\nb, \u202e.

    These are control characters, terminal escapes, line ends, marks that turn the direction of writing, and
    halves of characters. A backslash stays one, so text that was printable before is not changed again.
    """
    given = str(text)
    if given.isprintable():
        return given
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in given)
