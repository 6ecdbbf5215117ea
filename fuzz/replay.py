"""Runs inputs that are kept, in any build, without a fuzzer: `python -m fuzz.replay [TARGET ...]`.

python -m fuzz.replay TARGET FILE ...       these inputs
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

from fuzz.catalogue import TARGETS, corpus, regressions


def replay(target: str, inputs: Iterable[tuple[str, bytes]]) -> int:
    """Runs inputs of a target. Returns how many; AssertionError names the first that finds something."""
    module = importlib.import_module(f"fuzz.targets.{target}")
    module.set_up()
    count = 0
    try:
        for name, data in inputs:
            try:
                module.run(data)
            except Exception as error:
                raise AssertionError(f"{target}, input {name}: {error}") from error
            count += 1
    finally:
        getattr(module, "tear_down", lambda: None)()
    return count


def main() -> int:
    words = sys.argv[1:]
    if len(words) > 1 and words[0] in TARGETS and words[1] not in TARGETS:
        replay(words[0], ((path, Path(path).read_bytes()) for path in words[1:]))
        return 0
    for target in words or TARGETS:
        count = replay(target, [*corpus(target), *regressions(target)])
        print(f"{target}: {count} inputs, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
