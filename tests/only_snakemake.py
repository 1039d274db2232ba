"""Run Snakemake as if it and its Slurm plugin were all that is installed: give its arguments."""

import re
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions

from packaging.requirements import Requirement

INSTALLED = ("snakemake", "snakemake-executor-plugin-slurm")


def canonical(name: str) -> str:
    """Return a distribution's name as PyPI writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def with_requirements(names) -> set[str]:
    """Return the distributions that come with these."""
    found, waiting = set(), list(names)
    while waiting:
        name = canonical(waiting.pop())
        if name in found:
            continue
        found.add(name)
        try:
            wanted = map(Requirement, distribution(name).requires or [])
        except PackageNotFoundError:
            continue
        waiting += [w.name for w in wanted if w.marker is None or w.marker.evaluate({"extra": ""})]
    return found


class Absent:
    """An import finder that finds none of these packages, though they are installed."""

    def __init__(self, packages: set[str]):
        self.packages = packages

    def find_spec(self, name, path=None, target=None):
        """Fail for a package that is not to be there."""
        if name.partition(".")[0] in self.packages:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


if __name__ == "__main__":
    here = with_requirements(INSTALLED)
    absent = {
        package
        for package, owners in packages_distributions().items()
        if not here & set(map(canonical, owners))
    }
    sys.meta_path.insert(0, Absent(absent))
    from snakemake.cli import main

    main(sys.argv[1:])
