"""Coverage-guided fuzzers on the code of this NIC, with AddressSanitizer and UndefinedBehaviorSanitizer.

    python fuzz/run.py [--seconds S] [--jobs N] [--json FILE] [TARGET ...]
    python fuzz/run.py --keep [TARGET ...]          the corpus is what was found, made small

Each target starts with its inputs of fuzz/corpus, goes on in build/fuzz/TARGET, and leaves what finds
something in build/fuzz/found. Needs clang-14 and `atheris`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzz.catalogue import DICTIONARIES, TARGETS, corpus, pack, regressions
from fuzz.seeds import write_seeds

ROOT = Path(__file__).parent.parent
WORK = ROOT / "build" / "fuzz"
FOUND = WORK / "found"
LIB = ROOT / "build" / "asan" / "lib"

MAX_LEN = {  # bytes of an input
    "native": 512,
    "virtio": 512,
    "offload": 320,
    "frames": 512,
    "messages": 2048,
    "captures": 1024,
    "plans": 768,
}
KEPT = 48 << 10  # bytes of inputs that a target's corpus may have
LIMITS = ("-timeout=30", "-rss_limit_mb=4096", "-print_final_stats=1", "-use_value_profile=0")
SANITIZERS = {
    # Python's own allocations at the end are no leaks; what is mapped without a reserve may be large.
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_abort=1:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


@dataclass
class Result:
    """What one target did."""

    target: str
    executions: int
    per_second: int
    corpus: int  # inputs
    coverage: int  # edges of compiled code, and of Python code where that is measured
    features: int
    found: list[str]  # files
    seconds: float


def build() -> None:
    """Compiles what the targets need. Exits with the compiler's complaint."""
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(LIB.relative_to(ROOT))]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "CDNA_VARIANT": "asan"}, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit((done.stdout + done.stderr)[-4000:] + "\nthe variant 'asan' does not build")


def preloaded() -> Path:
    """The library that has libFuzzer and AddressSanitizer in one."""
    spec = find_spec("atheris")
    if spec is None or spec.origin is None:
        sys.exit("no module atheris: pip install atheris")
    return Path(spec.origin).parent.parent / "asan_with_fuzzer.so"


def environment() -> dict[str, str]:
    paths = os.pathsep.join(map(str, (LIB, ROOT)))
    mine = {
        "LD_PRELOAD": str(preloaded()),
        "PYTHONPATH": paths,
        "PYTHONSAFEPATH": "1",
        "PYTHONMALLOC": "malloc",
    }
    return {**os.environ, **SANITIZERS, **mine}


def worker(target: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzz.worker", target, *arguments]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def prepare(target: str) -> Path:
    """The folder in which a target works: what is kept, and what earlier runs found."""
    folder = WORK / target
    folder.mkdir(parents=True, exist_ok=True)
    FOUND.mkdir(exist_ok=True)
    for name, data in (*corpus(target), *regressions(target)):
        (folder / name).write_bytes(data)
    if not any(folder.iterdir()):
        write_seeds(target, folder)
    return folder


def arguments_of(target: str) -> list[str]:
    arguments = [*LIMITS, f"-max_len={MAX_LEN[target]}", f"-artifact_prefix={FOUND}/{target}-"]
    words = DICTIONARIES / f"{target}.dict"
    return [*arguments, f"-dict={words}"] if words.exists() else arguments


def fuzz(target: str, seconds: float) -> Result:
    folder = prepare(target)
    before = set(FOUND.glob(f"{target}-*"))
    begun = time.monotonic()
    done = worker(target, [*arguments_of(target), f"-max_total_time={seconds:.0f}", str(folder)])
    (WORK / f"{target}.log").write_text(done.stdout)
    found = sorted(str(path.relative_to(ROOT)) for path in set(FOUND.glob(f"{target}-*")) - before)
    if done.returncode and not found:
        found = [f"(no input: see {WORK.relative_to(ROOT)}/{target}.log)"]
    return Result(
        target,
        executions=_last(r"stat::number_of_executed_units: (\d+)", done.stdout)
        or _last(r"^#(\d+)", done.stdout),
        per_second=_last(r"stat::average_exec_per_sec: *(\d+)", done.stdout),
        corpus=_last(r"corp: (\d+)/", done.stdout),
        coverage=_last(r"cov: (\d+)", done.stdout),
        features=_last(r"ft: (\d+)", done.stdout),
        found=found,
        seconds=round(time.monotonic() - begun, 1),
    )


def _last(pattern: str, text: str) -> int:
    numbers = re.findall(pattern, text, re.MULTILINE)
    return int(numbers[-1]) if numbers else 0


def keep(target: str) -> tuple[int, int]:
    """Makes the smallest corpus that reaches what everything found so far does. Returns inputs and bytes."""
    folder, small = prepare(target), WORK / f"{target}-small"
    shutil.rmtree(small, ignore_errors=True)
    small.mkdir(parents=True)
    done = worker(target, [*arguments_of(target), "-merge=1", str(small), str(folder)])
    inputs = sorted((path.read_bytes() for path in small.iterdir()), key=len)
    if not inputs:
        sys.exit(f"{target}: nothing to keep\n{done.stdout[-2000:]}")
    chosen: dict[str, bytes] = {}
    total = 0
    for data in inputs:  # the small ones: each was kept because it reaches something
        if total + len(data) > KEPT:
            break
        chosen[f"{len(chosen):04}"] = data
        total += len(data)
    pack(target, chosen)
    return len(chosen), total


def show(results: list[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Coverage-guided fuzzing with ASan and UBSan", title_justify="left")
    table.add_column("target")
    for name in ("executions", "a second", "inputs", "edges", "features", "found"):
        table.add_column(name, justify="right")
    for r in results:
        numbers = (r.executions, r.per_second, r.corpus, r.coverage, r.features)
        table.add_row(r.target, *(f"{number:,}" for number in numbers), str(len(r.found)))
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    for r in results:
        for path in r.found:
            print(f"{r.target}: {path}; python -m fuzz.replay {r.target} FILE runs it in the ordinary build")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="for each target (60)")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time (2)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file, too")
    parser.add_argument("--keep", action="store_true", help="make a corpus of what was found")
    parser.add_argument("--no-build", action="store_true", help="take the modules that are there")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options = parser.parse_args()
    targets = options.targets or list(TARGETS)
    if unknown := [target for target in targets if target not in TARGETS]:
        parser.error(f"no target {unknown[0]!r}: give some of {', '.join(TARGETS)}")
    if not options.no_build:
        build()
    if options.keep:
        for target in targets:
            print("{}: {} inputs, {} bytes".format(target, *keep(target)))
        return 0
    with ThreadPoolExecutor(options.jobs) as pool:
        results = list(pool.map(lambda target: fuzz(target, options.seconds), targets))
    show(results)
    if options.json:
        Path(options.json).write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    return 1 if any(result.found for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
