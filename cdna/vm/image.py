"""The initrd of a guest, made of what is installed: modules of a kernel, busybox, a few programs.

It is kept in the user's cache by what went into it, so it is made once, in a second or so. Nothing is
downloaded. A guest's kernel is Debian's for clouds, which is small and has virtio as modules.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from cdna.errors import ResourceError
from cdna.vm.cpio import LINK, PROGRAM, Archive

QEMU = "qemu-system-x86_64"
BOOT, MODULES = Path("/boot"), Path("/lib/modules")
DRIVERS = ("virtio_pci", "virtio_net")  # with what they need, in that order
PROGRAMS = ("iperf3", "ethtool", "ping")  # beside busybox's
PACKAGES = {
    QEMU: "qemu-system-x86",
    "busybox": "busybox-static",
    "iperf3": "iperf3",
    "ethtool": "ethtool",
    "ping": "iputils-ping",
}
KERNEL_PACKAGE = "linux-image-cloud-amd64"
SEARCH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Kernel:
    """An installed kernel: its version, its image, and the directory of its modules."""

    version: str
    image: Path
    modules: Path


def missing() -> list[str]:
    """What virtual machines need and this machine lacks, each as "program (Debian package)"."""
    lacking = [f"{name} ({PACKAGES[name]})" for name in (QEMU, "busybox", *PROGRAMS) if not _find(name)]
    busybox = _find("busybox")
    if busybox and _is_dynamic(busybox):
        lacking.append("a static busybox (busybox-static)")
    return lacking + ([] if _kernels() else [f"a kernel ({KERNEL_PACKAGE})"])


def kernel() -> Kernel:
    """The newest kernel with virtio modules. ResourceError: there is none."""
    found = _kernels()
    if not found:
        raise ResourceError(f"no kernel for virtual machines in {BOOT}: apt-get install {KERNEL_PACKAGE}")
    return found[-1]


@cache
def qemu_version() -> str:
    """Of the installed QEMU, e.g. 7.2.22; "unknown" when it does not say."""
    found = re.search(r"version ([\d.]+)", _output(QEMU, "--version"))
    return found[1] if found else "unknown"


@cache
def initrd() -> Path:
    """The initrd, made unless it is in the cache. ResourceError: something is missing, or no place for it."""
    if lacking := missing():
        raise ResourceError(f"virtual machines need {', '.join(lacking)}; make peers installs them")
    version, sources = kernel(), [Path(found) for name in ("busybox", *PROGRAMS) if (found := _find(name))]
    modules = list(_modules(version.modules))
    init = files("cdna.vm").joinpath("init.sh").read_text(encoding="utf-8")
    libraries = sorted({library for source in sources for library in _libraries(source)})
    state = [
        (str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sources + modules + libraries
    ]
    name = hashlib.sha256(repr((init, state)).encode()).hexdigest()[:16]
    place = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "cdna"
    path = place / f"initrd-{name}.cpio"
    if not path.exists():
        try:
            place.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}")
            partial.write_bytes(_archive(init, sources, modules, libraries))
            partial.replace(path)
        except OSError as error:
            raise ResourceError(f"{path}: not written ({error.strerror}); set XDG_CACHE_HOME") from None
    return path


def _archive(
    init: str, programs: Sequence[Path], modules: Sequence[Path], libraries: Sequence[Path]
) -> bytes:
    archive = Archive()
    for name in ("proc", "sys", "dev", "tmp", "sbin", "usr/bin", "usr/sbin", "bin"):
        archive.add(f"{name}/.keep")
    archive.add("init", init.encode(), PROGRAM)
    for program in programs:
        archive.add(f"bin/{program.name}", program.read_bytes(), PROGRAM)
    for applet in _output(str(programs[0]), "--list").split():
        archive.add(f"bin/{applet}", b"busybox", LINK)
    for library in libraries:  # where the programs look for them
        archive.add(str(library).lstrip("/"), library.read_bytes(), PROGRAM)
    for module in modules:
        content = module.read_bytes()
        archive.add(f"modules/{module.name.removesuffix('.xz')}", _unpacked(module, content))
    order = "".join(f"{module.name.removesuffix('.xz')}\n" for module in modules)
    archive.add("modules/order", order.encode())
    return archive.finish()


def _modules(directory: Path) -> Iterator[Path]:
    """The drivers and what they depend on, each after what it depends on."""
    needs: dict[str, list[str]] = {}
    paths: dict[str, Path] = {}
    for line in (directory / "modules.dep").read_text().splitlines():
        module, _, after = line.partition(":")
        paths[_name(module)] = directory / module
        needs[_name(module)] = [_name(other) for other in reversed(after.split())]
    done: list[str] = []
    for driver in DRIVERS:
        for name in (*needs.get(driver, ()), driver):
            if name in paths and name not in done:  # one that is not is built into the kernel
                done.append(name)
                yield paths[name]


def _name(module: str) -> str:
    return Path(module).name.partition(".")[0].replace("-", "_")


def _unpacked(module: Path, content: bytes) -> bytes:
    return lzma.decompress(content) if module.suffix == ".xz" else content


def _kernels() -> list[Kernel]:
    """Kernels that are here with their modules and can be read, Debian's cloud kernels last, by version."""
    found = []
    for image in BOOT.glob("vmlinuz-*-amd64"):
        version = image.name.removeprefix("vmlinuz-")
        modules = MODULES / version
        if os.access(image, os.R_OK) and (modules / "modules.dep").exists():
            found.append(Kernel(version, image, modules))
    return sorted(found, key=lambda one: ("cloud" in one.version, _numbers(one.version)))


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def _libraries(program: Path) -> list[Path]:
    """The shared libraries of a program, the loader among them; none of a static one."""
    if not _is_dynamic(str(program)):
        return []
    return [Path(word) for word in _output("ldd", str(program)).split() if word.startswith("/")]


def _is_dynamic(program: str) -> bool:
    return subprocess.run(["ldd", program], capture_output=True).returncode == 0


def _find(program: str) -> str | None:
    return shutil.which(program, path=SEARCH)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
