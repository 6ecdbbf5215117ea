"""The registry of paths: a line each, in the order of every table and legend.

Another package adds one by an entry point of the group `cdna.paths`, whose object is a `ComparisonPath`:

    [project.entry-points."cdna.paths"]
    toy = "toy_path:PATH"
"""

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from cdna.compare.path import ComparisonPath, Contender
from cdna.errors import ConfigError

GROUP = "cdna.paths"
OURS = (
    EntryPoint("cdna", "cdna.compare.paths.cdna:PATH", GROUP),
    EntryPoint("bridge", "cdna.compare.paths.xen3:PATH", GROUP),
)


@cache
def paths() -> dict[str, ComparisonPath]:
    """All paths by name. ConfigError: another package's cannot be loaded, or has a name that is taken."""
    found: dict[str, ComparisonPath] = {}
    for entry in (*OURS, *sorted(entry_points(group=GROUP), key=lambda entry: entry.name)):
        origin = f"path {entry.name}, of package {entry.dist.name if entry.dist else 'cdna'}"
        try:
            path = entry.load()
        except Exception as error:  # whatever another package's code raises
            raise ConfigError(f"{origin}: cannot be loaded ({type(error).__name__}: {error})") from error
        if not isinstance(path, ComparisonPath) or path.name != entry.name:
            raise ConfigError(f"{origin}: {entry.value} is no ComparisonPath of this name")
        if path.name in found:
            raise ConfigError(f"{origin}: there is a path of this name; uninstall one of the two")
        found[path.name] = path
    return found


def path_named(name: str) -> ComparisonPath:
    """ConfigError: there is none of this name."""
    if name not in paths():
        raise ConfigError(f"path {name}: there is no such path; give one of {', '.join(paths())}")
    return paths()[name]


def reference_of(names: set[str]) -> ComparisonPath:
    """The path that ratios are to: the first baseline, of those with these names if there is one."""
    baselines = [path for path in paths().values() if path.baseline]
    return next((path for path in baselines if path.name in names), baselines[0])


@cache
def contenders() -> dict[str, Contender]:
    """All contenders by name, in the order of legends."""
    return {one.name: one for path in paths().values() for one in path.contenders()}
