import pytest
import yaml

from conceptcaps.benchmarks import Usage, read_usage, set_resources
from conceptcaps.errors import InputError

HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def write(path, seconds, rss):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEAD}{seconds}\t0:00:09\t{rss}\t1\t1\t1\t1\t1\t1\t1\n")


def test_the_most_of_any_job_of_a_rule_counts(tmp_path):
    write(tmp_path / "play/a/00000.tsv", 100.0, 1000.0)
    write(tmp_path / "play/b/00000.tsv", 300.0, "NA")
    write(tmp_path / "fit.tsv", 1.0, 90.5)
    assert read_usage(tmp_path) == [Usage("fit", 1, 90.5, 1.0), Usage("play", 2, 1000.0, 300.0)]


@pytest.mark.parametrize(
    ("rss", "wall", "mem_mb", "runtime"),
    [(0, 0, 500, 10), (1000, 300, 2000, 15), (1001, 301, 2500, 20), (333, 200, 1000, 10)],
)
def test_the_formula(rss, wall, mem_mb, runtime):
    usage = Usage("r", 1, rss, wall)
    assert (usage.mem_mb, usage.runtime_min) == (mem_mb, runtime)


def test_a_profile_can_take_what_is_printed(tmp_path):
    write(tmp_path / "play/00000.tsv", 100.0, 1000.0)
    printed = yaml.safe_load(set_resources(read_usage(tmp_path)))
    wanted = {"mem_mb": "2000 * attempt", "runtime": "10 * attempt"}
    assert printed == {"set-resources": {"play": wanted}}


def test_other_files_are_named(tmp_path):
    with pytest.raises(InputError, match="there are no benchmark files"):
        read_usage(tmp_path)
    (tmp_path / "x.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(InputError, match=r"x\.tsv: is not a benchmark file"):
        read_usage(tmp_path)
