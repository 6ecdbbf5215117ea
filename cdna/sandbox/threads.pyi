from collections.abc import Iterable, Sequence

NUMBERS: dict[str, int]

def every_thread(calls: Iterable[Sequence[int]]) -> None: ...
