"""What a check has found."""

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "slower", "missing"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    subject: what was looked at; found: what there is, in a few words; meaning: what that means for a user;
    mend: the one command that mends it, None where none does or nothing is wrong.
    """

    subject: str
    state: State
    found: str
    meaning: str
    mend: str | None = None
