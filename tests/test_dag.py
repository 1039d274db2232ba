"""The graph of jobs, by dry runs: what every profile plans, and what a change makes run again."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

STAGES = {
    "retrieve_musiccaps": 1,
    "retrieve_gtzan": 1,
    "distill_musiccaps": 1,
    "fit_vae": 1,
    "plan_tags": 1,
    "sample_tags": 1,
    "finetune_captioner": 1,
    "generate_captions": 46,
    "generate_heldout_captions": 3,
    "generate_audio": 46,
    "score_clap": 46,
    "embed_reference": 1,
    "summarise_clap": 1,
    "score_fad": 1,
    "score_text": 1,
    "fit_genrecnn": 1,
    "score_tcav": 1,
    "audit_concepts": 1,
    "record_run": 1,
    "export_dataset": 1,
}
GPU = {
    "finetune_captioner",
    "generate_captions",
    "generate_heldout_captions",
    "generate_audio",
    "score_clap",
    "embed_reference",
    "score_text",
    "fit_genrecnn",
    "score_tcav",
}


def counts(output):
    stats = output.split("Job stats:")[1].split("total")[0]
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", stats, re.MULTILINE)}


def test_a_dry_run_needs_snakemake_alone(checkout):
    """CI draws the graph where nothing else is installed; so does a site's login node."""
    tool = Path(__file__).with_name("only_snakemake.py")
    for options in ([], ["--profile", "slurm"], ["--workflow-profile", "mini"]):
        done = subprocess.run(
            [sys.executable, tool, "-n", "-q", "rules", *options],
            cwd=checkout.directory,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-2000:]


def test_paper_scale_on_slurm_plans_every_stage_offline_and_fast(checkout):
    started = time.monotonic()
    output = checkout.snakemake("--profile", "slurm", "-n", "results/conceptcaps.parquet").stdout
    assert time.monotonic() - started < 30  # the bar is 10 s; this machine is shared
    assert counts(output) == STAGES
    for job in re.split(r"\n(?=rule )", output)[1:]:
        name = re.match(r"rule (\w+):", job)[1]
        assert (name in GPU) == ("gpu=1" in job), name
        assert "runtime=" in job or name in ("plan_tags", "record_run"), name


def test_one_workstation_plans_the_same(checkout):
    output = checkout.snakemake("-n", "results/conceptcaps.parquet").stdout
    assert counts(output) == STAGES


def test_a_site_adds_a_profile_of_its_own(checkout, tmp_path):
    """As profiles/README.md says: outside the repository, named behind `slurm`."""
    site = {"default-resources": {"nodes": 1, "slurm_account": "'mine'"}}
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(site))
    arguments = ["--profile", "slurm", "--profile", tmp_path, "-n", "results/tags/tags.parquet"]
    output = checkout.snakemake(*arguments).stdout
    assert output.count("slurm_account=mine") == output.count("\nrule ") > 1


def test_the_default_target_is_everything(checkout):
    planned = counts(checkout.snakemake("--workflow-profile", "mini", "-n").stdout)
    assert set(planned) >= {*STAGES, "export_hub", "plot_tcav", "all"}
    assert not any(name.startswith("train_") for name in planned)  # the models are there


def test_the_retrained_miniature_trains_its_models_first(checkout):
    overlays = ["overlays/mini.yaml", "overlays/retrained.yaml"]
    arguments = ["--workflow-profile", "mini", "-n", "--configfile", *overlays]
    output = checkout.snakemake(*arguments).stdout
    models = {"llama", "codec", "musicgen", "clap", "roberta", "gpt2", "judge"}
    assert set(counts(output)) >= {*STAGES, *(f"train_mini_{name}" for name in models)}
    assert "resources/mini/models" not in output


def test_a_run_says_its_scale_once(checkout):
    said = "21433 clips of 30.0 s with facebook/musicgen-large; MusicCaps: google/MusicCaps;"
    assert checkout.snakemake("-n", "tags").stdout.count(said) == 1
    said = "1200 clips of 4.0 s with resources/mini/models/musicgen; MusicCaps: synthetic;"
    assert checkout.snakemake("--workflow-profile", "mini", "-n", "tags").stdout.count(said) == 1


@pytest.mark.parametrize(
    ("target", "last", "absent"),
    [
        ("tags", "sample_tags", "generate_captions"),
        ("captions", "generate_captions", "generate_audio"),
        ("audio", "generate_audio", "score_clap"),
        ("scores", "score_fad", "score_tcav"),
        ("tcav", "score_tcav", "export_dataset"),
        ("dataset", "export_hub", "check_miniature"),
        ("webdataset", "export_webdataset", "export_hub"),
        ("push", "push_to_hub", "check_miniature"),
        ("explorer", "export_explorer", "export_hub"),
        ("figures", "plot_tcav", "export_hub"),
        ("mini_models", "list_mini_models", "fit_vae"),
        ("clip_audio", "retrieve_clip_audio", "distill_musiccaps"),
    ],
)
def test_stage_targets(checkout, target, last, absent):
    planned = counts(checkout.snakemake("--workflow-profile", "mini", "-n", target).stdout)
    assert last in planned and absent not in planned


def test_one_job_at_a_time_downloads_and_none_starts_again_at_once(checkout):
    """Also on a cluster, where other jobs that fail do start again."""
    for profile in (["--workflow-profile", "mini"], ["--profile", "slurm"]):
        output = checkout.snakemake(*profile, "-n", "clip_audio").stdout
        jobs = re.findall(r"\nrule retrieve_clip_audio:(.*?)\n\n", output, re.DOTALL)
        assert jobs and all("downloads=1" in job for job in jobs)
    text = (checkout.directory / "rules/sources.smk").read_text()
    assert "retries: 0" in text.split("rule retrieve_clip_audio")[1].split("rule ")[0]


def test_more_items_only_add_shards(checkout):
    def shards(items):
        args = ["--workflow-profile", "mini", "-n", "audio", "--config", f"tags={{items: {items}}}"]
        output = checkout.snakemake(*args).stdout
        return set(re.findall(r"output: results/mini/audio/conceptcaps/(\d+)\.parquet", output))

    assert shards(1200) == {"00000", "00001"}
    assert shards(1210) == {"00000", "00001", "00002"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config", "audio={guidance_scal: 3}"],
            "unknown key 'audio.guidance_scal'. Did",
        ),
        (["--config", "tags={items: few}"], "tags.items: must be of type integer"),
        (
            ["--config", "sources={musiccaps: {kind: file, path: nowhere.csv}}"],
            "sources.musiccaps.path: there is no file 'nowhere.csv'",
        ),
        (
            ["--config", "gtzan={kind: folder, path: nowhere}"],
            "gtzan.path: there is no folder 'nowhere'",
        ),
        (
            ["--config", "gtzan={kind: folder, path: docs}"],
            "gtzan.path: 'docs' holds no audio files",
        ),
        (
            ["--config", "scores={fad: {reference: docs}}"],
            "scores.fad.reference: docs: holds no audio files",
        ),
        (
            ["--config", "captioner={gate: {artists: nobody.txt}}"],
            "captioner.gate.artists: there is no file 'nobody.txt'",
        ),
        (["--resources", "gpu=0"], "resources: gpu is 0, in a profile or on the command line"),
        *(
            (
                ["--config", f"arms={{recorded: {{{arm}: tests}}}}"],
                f"arms.recorded: an arm cannot be named '{arm}'",
            )
            for arm in ("reference", "items", "index")
        ),
        (
            ["--config", "tcav={concepts: [pianoo]}"],
            "tcav.concepts: 'pianoo' is not a tag of resources/mini/taxonomy.yaml. Did you mean 'p",
        ),
        (
            ["--config", "tags={given: [pianno]}"],
            "taxonomy and tags: tags.given: 'pianno' is no tag of the taxonomy. Did you mean 'p",
        ),
        (
            ["--config", "audio={model: models/lost}"],
            "audio.model: there is no directory 'models/lost'",
        ),
    ],
)
def test_bad_config_is_one_message_before_any_job(checkout, arguments, message):
    done = checkout.snakemake("--workflow-profile", "mini", "-n", *arguments, check=False)
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout


def reruns(run, *arguments):
    """Return the rules that a dry run plans on top of finished results."""
    output = run.snakemake("--workflow-profile", "mini", "-n", *arguments).stdout
    return set() if "Nothing to be done" in output else set(counts(output)) - {"all"}


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("setting", "first", "spared"),
    [
        ("audio={guidance_scale: 2}", "generate_audio", "generate_captions"),
        ("captioner={generate: {temperature: 0.5}}", "generate_captions", "finetune_captioner"),
        ("vae={presets: {mini: {beta: 0.2}}}", "fit_vae", "finetune_captioner"),
        ("tcav={alpha: 0.01}", "score_tcav", "score_clap"),
        ("dataset={test: 0.1}", "export_dataset", "score_tcav"),
        ("scores={fad: {bootstraps: 20}}", "score_fad", "score_clap"),
        ("distill={min_categories: 2}", "distill_musiccaps", "retrieve_musiccaps"),
    ],
)
def test_a_setting_reruns_its_stage_and_spares_the_earlier_ones(mini, setting, first, spared):
    planned = reruns(mini, "--config", setting)
    assert first in planned and spared not in planned
    assert "export_dataset" in planned


@pytest.mark.pipeline
def test_an_unused_preset_reruns_only_the_record(mini):
    planned = reruns(mini, "--config", "vae={presets: {paper: {beta: 0.5}}}")
    assert "fit_vae" not in planned and "generate_audio" not in planned


@pytest.mark.pipeline
def test_touching_or_commenting_code_reruns_nothing(mini, tmp_path):
    copy = mini.copy(tmp_path / "copy")
    for path in (copy.directory / "workflow/scripts").rglob("*.py"):
        path.write_text(path.read_text() + "\n# a remark\n")
        os.utime(path)
    assert reruns(copy) == set()
    engine = copy.directory / "workflow/scripts/conceptcaps/musicgen.py"
    engine.write_text(engine.read_text() + "\nVERSION = 2\n")
    planned = reruns(copy)
    assert "generate_audio" in planned and "generate_captions" not in planned
    shutil.rmtree(copy.directory)
