"""The compiled modules: ext/cdna/a/b.pyx is cdna.a.b; what others compile with is in b.pxd beside it.

A module says in a line of its own, `# build: WORD ...`, what is particular about it:

control     no data path: the compiler's time is better spent elsewhere
explored    the fuzzers are led by its branches
unfuzzed    no fuzzer's target reaches it

Modules below fuzz/, tests/ and benchmarks/ are in no wheel.

CDNA_CFLAGS adds flags for the C compiler, for example -march=native.
CDNA_COVERAGE=1 builds with line tracing, for coverage of the .pyx files.
CDNA_VARIANT=NAME (see VARIANTS) is for tests: with `build --build-lib build/NAME/lib` it makes a package
there, and leaves everything else as it was.
"""

import os
import re
import shutil
import tomllib
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
    without: tuple[str, ...] = ()  # what nobody needs there: beginnings of paths, and words of `# build:`
    explored: tuple[str, ...] = ()  # the same, of modules that fuzzers explore


TEST_BUILD = "-DCDNA_TEST_BUILD=1"  # see ext/cdna/checks.h
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
RIVALS = ("ext/cdna/bench/", "ext/cdna/compare/", "benchmarks/", "tests/support/xen")
UNSHIPPED = ("fuzz/", "tests/", "benchmarks/")
VARIANTS = {
    "checks": Variant(("-O1", TEST_BUILD), without=(*RIVALS, "fuzz/")),
    "asan": Variant(
        ("-O1", "-g1", *SANITIZERS, TEST_BUILD),
        SANITIZERS,
        compiler="clang-14",
        without=(*RIVALS, "ext/cdna/fuzz/", "tests/", "unfuzzed"),
        explored=("fuzz/", "explored"),
    ),
    "coverage": Variant(
        ("-O0", "--coverage"), ("--coverage",), linenums=True, without=(*RIVALS, "ext/cdna/fuzz/")
    ),
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
        if self.inplace or VARIANT:
            self.distribution.ext_modules = modules("ext", *UNSHIPPED)
        super().finalize_options()
        self.parallel = self.parallel or JOBS
        if self.inplace:  # an editable install would otherwise compile everything every time
            self.build_lib = str(BUILD / "lib")
        if VARIANT:
            self.build_temp = str(BUILD / "objects")

    def run(self):
        self.forget_older_directives()
        self.cythonize(self.extensions, None if COVERAGE else str(GENERATED), "ext")
        if VARIANT == "checks":
            self.plant()
            self.extensions = [ext for ext in self.extensions if not self.same_as_ordinary(ext)]
        super().run()

    def cythonize(self, extensions, generated, include):
        from Cython.Build import cythonize

        compiled = cythonize(
            extensions,
            nthreads=JOBS,
            build_dir=generated,
            compiler_directives=DIRECTIVES,
            include_path=[include],
            emit_linenums=BUILT_AS.linenums,
        )
        sources = {ext.name: ext.sources for ext in compiled}
        for ext in extensions:
            ext.sources = sources[ext.name]

    def plant(self):
        """Makes the modules with code that tests/checks/plants.toml changes from a changed copy of ext/."""
        copy = BUILD / "planted"
        files = planted_copy(copy)
        again = []
        for ext in self.extensions:
            if not ext.name.startswith("cdna."):  # it finds no flaw, and is not in the copy
                continue
            generated = Path(ext.sources[0]).read_text(errors="replace")
            if any(f'"cdna/{name}":' in generated for name in files):  # it names its functions' sources
                ext.sources = [str(Path(copy, *ext.name.split(".")).with_suffix(".pyx"))]
                again.append(ext)
        self.cythonize(again, str(BUILD / "generated"), str(copy))

    def forget_older_directives(self):
        """Cython compares dates of sources alone, and not of this file, which has the directives."""
        for ext in self.extensions:
            generated = GENERATED / Path(ext.sources[0]).with_suffix(".c")
            if generated.exists() and generated.stat().st_mtime < Path(__file__).stat().st_mtime:
                generated.unlink()

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


def planted_copy(copy):
    """Copies ext/ with the changes of tests/checks/plants.toml. Returns the changed files, below ext/cdna.

    What has not changed since the last copy keeps its date.
    """
    changes = tomllib.loads(Path("tests/checks/plants.toml").read_text())["change"]
    for source in sorted(Path("ext").rglob("*.*")):
        text = "\n" + source.read_text()
        for change in changes:
            if source == Path("ext/cdna", change["file"]):
                if text.count(change["honest"]) != 1:
                    raise SystemExit(f"tests/checks/plants.toml: {source} has not once:{change['honest']}")
                text = text.replace(change["honest"], change["planted"])
        names = sorted(set(re.findall(r"\b(?:PLANT_\w+|again_u\d+)\b", text)))
        if names and source.stem != "checks":
            statement = f"from cdna.checks cimport {', '.join(names)}"
            text = text.replace("\nfrom cdna.checks cimport", f"\n{statement}\nfrom cdna.checks cimport", 1)
        target = copy / source.relative_to("ext")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text() != text[1:]:
            target.write_text(text[1:])
    return {change["file"] for change in changes}


WARNINGS = [
    "-Wno-address-of-packed-member",  # the packed structs of cdna.abi are aligned by layout
    "-Wno-sign-compare",  # Cython makes signed words of enumerators
]


class BuildPy(build_py):
    def finalize_options(self):
        super().finalize_options()
        if VARIANT:
            self.packages = [*self.packages, "fuzz", "fuzz.targets"]
            inputs = ["corpus/*", "dictionaries/*", "regressions/*/*"]
            self.package_data = {**self.package_data, "fuzz": inputs}

    def run(self):
        super().run()
        if not self.editable_mode:  # what compiled code of others needs, a wire's for example
            for pattern in ("*.pxd", "*.h"):
                for source in sorted(Path("ext").rglob(pattern)):
                    target = Path(self.build_lib, source.relative_to("ext"))
                    self.mkpath(str(target.parent))
                    self.copy_file(str(source), str(target))


def words(pyx):
    """What a module says of itself after `# build:`."""
    said = re.search(r"^# build: (.*)$", pyx.read_text(), re.M)
    return said[1].split() if said else []


def is_among(pyx, choice):
    """choice: beginnings of paths, and words."""
    return str(pyx).startswith(choice) or not set(words(pyx)).isdisjoint(choice)


def extension(pyx):
    name = pyx.relative_to("ext") if pyx.parts[0] == "ext" else pyx
    return Extension(
        ".".join(name.with_suffix("").parts),
        [str(pyx)],
        include_dirs=["ext/cdna"],
        depends=["setup.py", *map(str, sorted(Path("ext").rglob("*.h")))],
        define_macros=[("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")] if COVERAGE else [],
        extra_compile_args=[
            "-O1" if is_among(pyx, ("fuzz/", "control")) else "-O3",
            "-g0",
            "-fno-strict-aliasing",
            "-fno-semantic-interposition",
            *WARNINGS,
            *CFLAGS,
            *BUILT_AS.cflags,
            *["-fsanitize=fuzzer-no-link"] * is_among(pyx, BUILT_AS.explored),
        ],
        extra_link_args=[*BUILT_AS.ldflags],
    )


def modules(*folders):
    found = [pyx for folder in folders for pyx in sorted(Path(folder).rglob("*.pyx"))]
    return [extension(pyx) for pyx in found if not is_among(pyx, BUILT_AS.without)]


if __name__ == "__main__":  # cythonize may start its workers by importing this file
    setup(ext_modules=modules("ext"), cmdclass={"build_ext": BuildExt, "build_py": BuildPy})
