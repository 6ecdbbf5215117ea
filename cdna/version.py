"""The version of this package."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("cdna")
except PackageNotFoundError:  # a copy of the source tree that was not installed
    __version__ = "unknown"
