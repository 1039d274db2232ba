"""The whole miniature through sbatch: where its jobs ran, and that the result is the same."""

import re

import pytest
from cluster import NODES
from conftest import check_out
from runs import SLURM, contents, differing, finish, on, said, start

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def whole(cluster, tmp_path_factory):
    run = on(cluster, check_out(tmp_path_factory.mktemp("whole") / "run"))
    run.results = run.directory / "results/slurm_mini"
    process = start(run)
    assert finish(run, process, 1800) == 0, said(run)[-6000:]
    return run


@pytest.fixture(scope="module")
def gpu_rules(checkout):
    """The rules that ask for a GPU, as a dry run says."""
    planned = checkout.snakemake(*SLURM, "-n", "--forceall").stdout
    jobs = re.findall(r"\nrule (\w+):(.*?)(?=\n\n|\nrule |\Z)", planned, re.DOTALL)
    return {name for name, text in jobs if "gpu=1" in text}


def test_the_bytes_are_those_of_a_run_without_slurm(whole, small):
    found, wanted = contents(whole.results), contents(small.results)
    assert len(wanted) > 40
    assert differing(found, wanted) == []


def test_gpu_jobs_ran_on_gpu_nodes_and_the_others_did_not(whole, cluster, gpu_rules):
    jobs = {
        int(job["JobId"]): job for job in cluster.jobs() if job["WorkDir"] == str(whole.directory)
    }
    assert len({job["Rule"] for job in jobs.values()}) > 15
    assert {"generate_captions", "generate_audio", "score_clap"} <= gpu_rules
    spans = [span for span in cluster.spans() if span.job in jobs]
    assert {span.job for span in spans} == set(jobs)
    for job in jobs.values():
        wanted = "gpu" if job["Rule"] in gpu_rules else "cpu"
        assert (job["Partition"], job["JobState"]) == (wanted, "COMPLETED"), job
    for span in spans:
        wants_gpu = jobs[span.job]["Rule"] in gpu_rules
        assert span.node.startswith("gpu" if wants_gpu else "cpu"), span
        assert len(span.devices) == int(wants_gpu), span


def test_no_gpu_is_held_twice_and_never_more_than_there_are(whole, cluster):
    held = [span for span in cluster.spans() if span.step == "-" and span.devices]
    for a in held:
        for b in held:
            apart = a.end <= b.start or b.end <= a.start
            same = a.node == b.node and set(a.devices) & set(b.devices)
            assert a.job == b.job or apart or not same, (a, b)
    peak = max(sum(len(b.devices) for b in held if b.start <= a.start < b.end) for a in held)
    # More than one: `resources: {gpu: 1}` of profiles/default does not throttle a cluster.
    assert 1 < peak <= sum(NODES.values())


def test_nothing_is_left_to_do(whole):
    assert "Nothing to be done" in whole.snakemake(*SLURM, "-n").stdout
