"""The package version, in a file that imports nothing, so that building needs no import of the package; and others'."""

TYPE_CHECKING = False  # what type checkers take for true; importing `typing` would cost more than this file
if TYPE_CHECKING:
    from collections.abc import Iterable

__version__ = '0.1.0'


def installed(packages: 'Iterable[str]') -> dict[str, str]:
    """The versions of those packages that are installed, by name."""
    from importlib.metadata import PackageNotFoundError, version  # imported late: takes 40 ms, and --help is to be fast

    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
