"""Runs one target under libFuzzer, in this process: `python -m fuzz.worker TARGET [ARGUMENT ...]`.

The arguments are libFuzzer's. The process has to be started with the library of `atheris` preloaded that has
both libFuzzer and AddressSanitizer, and with the modules of the variant "asan" in its path, as `fuzz/run.py`
does.
"""

from __future__ import annotations

import ctypes
import importlib
import sys

import atheris

from fuzz.catalogue import NATIVE, PYTHON, instrumented


def again(target: str) -> str:
    """What libFuzzer starts where it wants another process of the same target, by a shell."""
    return f"{sys.executable} -m fuzz.worker {target}"


def run_native(target: str, arguments: list[str]) -> int:
    """A C function that libFuzzer calls itself: no Python between two inputs."""
    module = importlib.import_module(f"fuzz.targets.{target}")
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
    driver = ctypes.CDLL(None).LLVMFuzzerRunDriver
    words = [again(target).encode(), *(argument.encode() for argument in arguments)]
    argv = (ctypes.c_char_p * (len(words) + 1))(*words, None)
    argc = ctypes.c_int(len(words))
    pointer = ctypes.cast(argv, ctypes.POINTER(ctypes.c_char_p))
    return int(driver(ctypes.byref(argc), ctypes.byref(pointer), function(module.address())))


def run_python(target: str, arguments: list[str]) -> None:
    """A Python function; what it imports is instrumented by atheris as it is loaded."""
    with atheris.instrument_imports(include=list(instrumented(target)), enable_loader_override=False):
        module = importlib.import_module(f"fuzz.targets.{target}")
    module.set_up()
    atheris.Setup([again(target), *arguments], module.run)
    atheris.Fuzz()


def main() -> int:
    target, *arguments = sys.argv[1:]
    if target in NATIVE:
        return run_native(target, arguments)
    if target in PYTHON:
        run_python(target, arguments)
        return 0
    print(f"no target {target!r}: give one of {', '.join((*NATIVE, *PYTHON))}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
