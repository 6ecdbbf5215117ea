"""The compiled modules: ext/a/b.pyx is the body of cdna.a.b, whose interface is cdna/a/b.pxd.

CDNA_CFLAGS adds flags for the C compiler, for example -march=native.
CDNA_COVERAGE=1 builds with line tracing, for coverage of the .pyx files.
"""

import os
import re
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

COVERAGE = os.environ.get("CDNA_COVERAGE") == "1"
CFLAGS = os.environ.get("CDNA_CFLAGS", "").split()
JOBS = len(os.sched_getaffinity(0))

# One directory per choice of flags: another choice never finds the wrong objects up to date.
BUILD = Path("build", re.sub(r"[^\w.=]+", "-", " ".join(["ext", *["coverage"] * COVERAGE, *CFLAGS])))
# The coverage plugin looks for the generated C beside the .pyx.
GENERATED = Path() if COVERAGE else BUILD

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
        super().finalize_options()
        self.parallel = self.parallel or JOBS
        if self.inplace:  # an editable install would otherwise compile everything every time
            self.build_lib = str(BUILD / "lib")

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

        build_dir = None if COVERAGE else str(BUILD)
        compiled = cythonize(
            self.extensions, nthreads=JOBS, build_dir=build_dir, compiler_directives=DIRECTIVES
        )
        sources = {ext.name: ext.sources for ext in compiled}
        for ext in self.extensions:
            ext.sources = sources[ext.name]
        super().run()


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
}
WARNINGS = ["-Wno-address-of-packed-member"]  # the packed structs of cdna.abi are aligned by layout


def extension(pyx):
    return Extension(
        ".".join(["cdna", *pyx.relative_to("ext").with_suffix("").parts]),
        [str(pyx)],
        include_dirs=["ext"],
        depends=["setup.py", *map(str, sorted(Path("ext").rglob("*.h")))],
        define_macros=[("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")] if COVERAGE else [],
        extra_compile_args=[
            "-O1" if pyx.stem in CONTROL else "-O3",
            "-g0",
            "-fno-strict-aliasing",
            "-fno-semantic-interposition",
            *WARNINGS,
            *CFLAGS,
        ],
    )


if __name__ == "__main__":  # cythonize may start its workers by importing this file
    setup(
        ext_modules=[extension(pyx) for pyx in sorted(Path("ext").rglob("*.pyx"))],
        cmdclass={"build_ext": BuildExt},
    )
