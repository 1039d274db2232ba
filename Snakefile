"""ConceptCaps: concept datasets for music models, from MusicCaps tags to TCAV.

    snakemake --profile slurm results/conceptcaps.parquet     on a cluster
    snakemake --cores all results/conceptcaps.parquet         on one workstation
    snakemake --workflow-profile mini                         in miniature, on a laptop

Stage targets: tags, captions, audio, scores, tcav, dataset, scorecard, figures. `-n` shows what would run and why.
"""

from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


report: "workflow/report/workflow.rst"


# A limit such as `resources: {gpu: 1}` is about one machine; a cluster's jobs are not held to it.
resource_scopes:
    gpu="local",


wildcard_constraints:
    arm=r"[a-z][a-z0-9_]*",
    shard=r"\d{5}",


include: "rules/common.smk"


check_config()


include: "rules/arms.smk"


check_taxonomy()
check_recorded()
check_gpus()
check_results_writable()
say_scale()


include: "rules/targets.smk"
include: "rules/sources.smk"
include: "rules/distill.smk"
include: "rules/vae.smk"
include: "rules/captions.smk"
include: "rules/audio.smk"
include: "rules/scores.smk"
include: "rules/tcav.smk"
include: "rules/audit.smk"
include: "rules/dataset.smk"
include: "rules/scorecard.smk"
include: "rules/figures.smk"
include: "rules/mini.smk"
include: "rules/checks.smk"


localrules:
    all,


rule all:
    """The dataset, its hub folder, its figures and the scorecard."""
    default_target: True
    input:
        "<results>/conceptcaps.parquet",
        "<results>/hub",
        "<results>/scorecard.json",
        expand("<results>/figures/{figure}.png", figure=FIGURES),
        miniature_checks(),
