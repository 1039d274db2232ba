"""Shared set-up: the library on the path, no network, a copy of the repository to run in."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ZOO = "resources/mini/models"
sys.path.insert(0, str(ROOT / "workflow/scripts"))
sys.path.insert(0, str(ROOT / "tests/slurm"))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # tiny models: more threads only wait for each other


class Checkout:
    """A copy of the repository's files, as a fresh clone would be, and Snakemake in it."""

    def __init__(self, directory: Path, results: str = "results/mini", **variables: str):
        self.directory = directory
        self.results = directory / results
        self.variables = variables  # of the environment, beside those of every run

    def environment(self) -> dict:
        cache = {"XDG_CACHE_HOME": str(self.directory / ".snakemake/cache")}
        return os.environ | cache | {"PYTHONPATH": ""} | self.variables

    def command(self, *arguments) -> list[str]:
        return [str(Path(sys.executable).parent / "snakemake"), *map(str, arguments)]

    def snakemake(self, *arguments, check=True) -> subprocess.CompletedProcess:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.directory,
            env=self.environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if check and done.returncode:
            pytest.fail(f"snakemake {arguments} failed:\n{done.stdout[-6000:]}")
        return done

    def copy(self, directory: Path) -> "Checkout":
        """Return a copy with its results and Snakemake's records, times kept."""
        shutil.copytree(self.directory, directory, symlinks=True)
        results = str(self.results.relative_to(self.directory))
        return Checkout(directory, results, **self.variables)


def check_out(directory: Path) -> Checkout:
    """Copy the repository's files; the models, which nothing changes, are linked."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    (directory / ZOO).parent.mkdir(parents=True)
    (directory / ZOO).symlink_to(ROOT / ZOO)
    for name in filter(None, listed.split("\0")):
        if name.startswith(f"{ZOO}/"):
            continue
        source, target = ROOT / name, directory / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    return Checkout(directory)


def findings(script: str, root: Path) -> dict:
    """Run a script of this folder in a process of its own, with an own hub cache in `root`.

    It takes `root` as its argument and prints RESULT and its findings as JSON. What it reads as a
    checkpoint may try to print "unpickled": then code in a file of weights was run.
    """
    folder = ROOT / "tests"
    environment = os.environ | {
        "HF_HOME": str(root),
        "HF_HUB_CACHE": str(root / "hub"),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "workflow/scripts"), str(folder)]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(folder / script), str(root)],
        env=environment, text=True, capture_output=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "unpickled" not in done.stdout
    return json.loads(done.stdout.split("RESULT")[1])


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Checkout:
    """A fresh checkout for dry runs. Tests do not change it."""
    return check_out(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def mini(tmp_path_factory) -> Checkout:
    """A checkout in which the miniature has run once. Tests do not change it.

    CONCEPTCAPS_MINI names a directory in which it stays for the next test session, so that
    one miniature serves `make test` and `make test-long`. Who sets it changes no file between.
    """
    kept = os.environ.get("CONCEPTCAPS_MINI")
    directory = Path(kept) / "run" if kept else tmp_path_factory.mktemp("mini")
    done = directory.with_name("done")
    if kept and done.exists():
        return Checkout(directory)
    fresh = check_out(directory)
    fresh.snakemake("--workflow-profile", "mini")
    if kept:
        done.touch()
    return fresh


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Checkout:
    """A checkout in which the small miniature of tests/slurm has run without Slurm."""
    fresh = check_out(tmp_path_factory.mktemp("small"))
    overlays = ["overlays/mini.yaml", "tests/slurm/overlay.yaml"]
    fresh.snakemake("--workflow-profile", "mini", "--configfile", *overlays)
    return Checkout(fresh.directory, "results/slurm_mini")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """A running Slurm of three nodes (tests/slurm/cluster.py); skips where there is none."""
    from cluster import Cluster, missing

    if why := missing():
        pytest.skip(why)
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "cluster")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Checkout:
    """A checkout whose results Snakemake takes for finished, though nothing ran. Do not change it.

    Every output is a file of one byte, and `snakemake --touch` records it: with that, the reruns of
    every rule, optional ones included, can be planned in seconds.
    """
    run = check_out(tmp_path_factory.mktemp("finished"))
    with reruns_of(run) as (planned, _), planned(*OPTIONAL) as workflow:
        outputs = [path for job in workflow.dag.jobs for path in job.output]
    for path in outputs:
        made = run.directory / path
        (made if path.is_directory else made.parent).mkdir(parents=True, exist_ok=True)
        if not path.is_directory:
            made.write_text(".")
    run.snakemake("--workflow-profile", "mini", "--touch", "--forceall", *OPTIONAL)
    return run


# With these targets, every rule of the workflow is run.
OPTIONAL = (
    "all",
    "tag_models",
    "tag_sweep",
    "taxonomy_proposal",
    "captions_all_arms",
    "mini_models",
    "clip_audio",
    "webdataset",
    "push",
    "explorer",
)


@contextlib.contextmanager
def reruns_of(run: Checkout):
    """Yield a function that plans in this process, in `run`, and the module that it is from."""
    sys.path.insert(0, str(ROOT / "workflow"))
    import reruns

    def planned(*targets, overlays=()):
        files = ["overlays/mini.yaml", *map(str, overlays)]
        return reruns.planned(
            ["--workflow-profile", "mini", "--configfile", *files, "--", *targets]
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", run.environment()["XDG_CACHE_HOME"])
        patch.chdir(run.directory)
        yield planned, reruns
