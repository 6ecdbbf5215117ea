"""The compiled modules: ext/a/b.pyx is the body of cdna.a.b, whose interface is cdna/a/b.pxd.

CDNA_CFLAGS adds flags for the C compiler, for example -march=native.
CDNA_COVERAGE=1 builds with line tracing, for coverage of the .pyx files.
CDNA_VARIANT=NAME (see VARIANTS) is for tests: with `build --build-lib build/NAME/lib` it makes a package
there, and leaves everything else as it was.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

COVERAGE = os.environ.get("CDNA_COVERAGE") == "1"
CFLAGS = os.environ.get("CDNA_CFLAGS", "").split()
JOBS = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Variant:
    """A build for tests: another compiler, other flags, other C."""

    cflags: tuple[str, ...] = ()  # behind all others
    ldflags: tuple[str, ...] = ()
    compiler: str | None = None
    linenums: bool = False  # lines of the .pyx and .pxd files, not of the generated C
    without: tuple[str, ...] = ()  # what nobody needs there: beginnings of paths
    traced: tuple[str, ...] = ()  # modules that a fuzzer is to explore


TEST_BUILD = "-DCDNA_TEST_BUILD=1"  # see ext/checks.h
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
NOT_FUZZED = ("ext/baseline/", "ext/bench/", "ext/compare/", "ext/fuzz/")
NOT_REACHED = (  # by a fuzzer's target
    *("ext/guest_driver/pump", "ext/guest_driver/remote", "ext/guest_driver/synthetic", "ext/nic/generator"),
    *("ext/nic/loopback", "ext/nic/null", "ext/nic/packet", "ext/nic/tap", "ext/nic/traffic"),
)
TRACED = (
    *("ext/nic/capture_walk", "ext/nic/captured", "ext/nic/control_queue", "ext/nic/engine"),
    *("ext/nic/guest_mapping", "ext/nic/replay"),
    *("ext/nic/virtio_device", "ext/vmm/protection", "fuzz/"),
)
VARIANTS = {
    "checks": Variant(("-O1", TEST_BUILD), without=("ext/baseline/", "ext/bench/", "ext/compare/", "fuzz/")),
    "asan": Variant(
        ("-O1", "-g1", *SANITIZERS, TEST_BUILD),
        SANITIZERS,
        compiler="clang-14",
        without=(*NOT_FUZZED, *NOT_REACHED),
        traced=TRACED,
    ),
    "coverage": Variant(("-O0", "--coverage"), ("--coverage",), linenums=True, without=NOT_FUZZED),
}
VARIANT = os.environ.get("CDNA_VARIANT", "")
if VARIANT and VARIANT not in VARIANTS:
    raise SystemExit(f"CDNA_VARIANT={VARIANT}: one of {', '.join(VARIANTS)}")
BUILT_AS = VARIANTS.get(VARIANT, Variant())

# One directory per choice of flags: another choice never finds the wrong objects up to date.
BUILD = Path("build", re.sub(r"[^\w.=]+", "-", " ".join(["ext", *["coverage"] * COVERAGE, *CFLAGS])))
if VARIANT:
    BUILD = Path("build", VARIANT)
if COVERAGE:  # the coverage plugin looks for the generated C beside the .pyx
    GENERATED = Path()
elif BUILT_AS.linenums:
    GENERATED = BUILD
else:  # variants differ from the ordinary build in the compiler's flags alone
    GENERATED = Path("build", "ext")

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
    "allow_none_for_extension_args": False,  # None is a TypeError then, and no null pointer
    "linetrace": COVERAGE,
}


class BuildExt(build_ext):
    def finalize_options(self):
        if self.inplace or VARIANT:  # what is only for tests is in no wheel
            self.distribution.ext_modules = modules("ext", "fuzz")
        super().finalize_options()
        self.parallel = self.parallel or JOBS
        if self.inplace:  # an editable install would otherwise compile everything every time
            self.build_lib = str(BUILD / "lib")
        if VARIANT:
            self.build_temp = str(BUILD / "objects")

    def run(self):
        from Cython.Build import cythonize
        from Cython.Build.Dependencies import create_dependency_tree

        # Cython follows cimports, but looks for a module's own .pxd only beside its .pyx.
        newest_dependency = create_dependency_tree(quiet=True).newest_dependency
        for ext in self.extensions:
            interface = Path(*ext.name.split(".")).with_suffix(".pxd")
            generated = GENERATED / Path(ext.sources[0]).with_suffix(".c")
            if generated.exists():
                newest = Path(__file__).stat().st_mtime  # it has the directives
                if interface.exists():
                    newest = max(newest, newest_dependency(str(interface))[0])
                if generated.stat().st_mtime < newest:
                    generated.unlink()

        compiled = cythonize(
            self.extensions,
            nthreads=JOBS,
            build_dir=None if COVERAGE else str(GENERATED),
            compiler_directives=DIRECTIVES,
            emit_linenums=BUILT_AS.linenums,
        )
        sources = {ext.name: ext.sources for ext in compiled}
        for ext in self.extensions:
            ext.sources = sources[ext.name]
        if VARIANT == "checks":
            self.extensions = [ext for ext in self.extensions if not self.same_as_ordinary(ext)]
        super().run()

    def same_as_ordinary(self, ext):
        """Whether a module makes no checks and the tree has it compiled: then a copy of that will do."""
        source, ordinary = Path(ext.sources[0]), Path(self.get_ext_filename(ext.name))
        if '#include "checks.h"' in source.read_text(errors="replace"):
            return False
        if not ordinary.exists() or ordinary.stat().st_mtime < source.stat().st_mtime:
            return False
        copy = Path(self.build_lib, ordinary)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ordinary, copy)
        return True

    def build_extensions(self):
        if BUILT_AS.compiler:
            self.compiler.set_executables(
                compiler_so=[BUILT_AS.compiler, *self.compiler.compiler_so[1:]],
                linker_so=[BUILT_AS.compiler, *self.compiler.linker_so[1:]],
            )
        super().build_extensions()


# Modules that only control: the compiler's time is better spent elsewhere.
CONTROL = {
    "abi",
    "memory",
    "device",
    "options",
    "files",
    "tables",
    "slice",
    "xen",
    "domain",
    "public",
    "traffic",
    "hypercall",
    "control_queue",
    "threads",
}
WARNINGS = ["-Wno-address-of-packed-member"]  # the packed structs of cdna.abi are aligned by layout


class BuildPy(build_py):
    def finalize_options(self):
        super().finalize_options()
        if VARIANT:
            self.packages = [*self.packages, "fuzz", "fuzz.targets"]
            inputs = ["corpus/*", "dictionaries/*", "regressions/*/*"]
            self.package_data = {**self.package_data, "fuzz": inputs}


def extension(pyx):
    name = Path("cdna", *pyx.parts[1:]) if pyx.parts[0] == "ext" else pyx
    return Extension(
        ".".join(name.with_suffix("").parts),
        [str(pyx)],
        include_dirs=["ext"],
        depends=["setup.py", *map(str, sorted(Path("ext").rglob("*.h")))],
        define_macros=[("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")] if COVERAGE else [],
        extra_compile_args=[
            "-O1" if pyx.stem in CONTROL or pyx.parts[0] == "fuzz" else "-O3",
            "-g0",
            "-fno-strict-aliasing",
            "-fno-semantic-interposition",
            *WARNINGS,
            *CFLAGS,
            *BUILT_AS.cflags,
            *["-fsanitize=fuzzer-no-link"] * str(pyx).startswith(BUILT_AS.traced),
        ],
        extra_link_args=[*BUILT_AS.ldflags],
    )


def modules(*folders):
    found = [pyx for folder in folders for pyx in sorted(Path(folder).rglob("*.pyx"))]
    return [extension(pyx) for pyx in found if not str(pyx).startswith(BUILT_AS.without)]


if __name__ == "__main__":  # cythonize may start its workers by importing this file
    setup(ext_modules=modules("ext"), cmdclass={"build_ext": BuildExt, "build_py": BuildPy})
