"""What is shipped: the whole tree as source; as a wheel, all that Python and compiled code of others need."""

import subprocess
import sys
import tarfile
from pathlib import Path, PurePath

import pytest

ROOT = Path(__file__).parents[1]
NOT_SHIPPED = {".ci/run", ".gitignore"}

pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git checkout to compare with")


def setup_py(*arguments: str) -> None:
    subprocess.run([sys.executable, "setup.py", "-q", *arguments], cwd=ROOT, check=True, capture_output=True)


def tracked(*places: str) -> set[str]:
    """Files in git that are there: one that has just been removed is not missed."""
    listed = subprocess.run(
        ["git", "ls-files", *places], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return {name for name in listed.splitlines() if (ROOT / name).exists()}


def test_the_source_archive_has_the_whole_tree(tmp_path: Path) -> None:
    setup_py("egg_info", "--egg-base", str(tmp_path), "sdist", "--dist-dir", str(tmp_path))
    (archive,) = tmp_path.glob("cdna-*.tar.gz")
    with tarfile.open(archive) as files:
        shipped = {str(PurePath(*PurePath(name).parts[1:])) for name in files.getnames()}
    assert tracked() - shipped == NOT_SHIPPED
    assert not [name for name in shipped if name.endswith((".so", ".pyc"))]


def test_the_package_has_all_but_what_is_compiled(tmp_path: Path) -> None:
    """The declarations for other packages' compiled code among it, beside the Python modules."""
    setup_py("egg_info", "--egg-base", str(tmp_path), "build_py", "--build-lib", str(tmp_path / "lib"))
    shipped = {str(path.relative_to(tmp_path / "lib")) for path in (tmp_path / "lib").rglob("*.*")}
    declared = {name.removeprefix("ext/") for name in tracked("ext") if name.endswith((".pxd", ".h"))}
    assert shipped == tracked("cdna") | declared


def test_every_compiled_module_is_built() -> None:
    code = "import setup; print(*(module.name for module in setup.modules('ext')))"
    built = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    modules = {name for name in tracked("ext") if name.endswith(".pyx")}
    assert set(built.stdout.split()) == {
        name.removeprefix("ext/").removesuffix(".pyx").replace("/", ".") for name in modules
    }
