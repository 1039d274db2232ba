"""Named stage targets: `snakemake captions` makes everything up to the captions, and so on.

inputs:  any stage's outputs
outputs: none
steps:   tags, tag_models, tag_sweep, taxonomy_proposal, captions, captions_all_arms, audio, scores,
         tcav, dataset, webdataset, push, scorecard, explorer, figures,
         clip_audio, mini_models
"""


localrules:
    tags,
    tag_models,
    tag_sweep,
    taxonomy_proposal,
    captions,
    captions_all_arms,
    audio,
    scores,
    tcav,
    dataset,
    webdataset,
    push,
    scorecard,
    explorer,
    figures,
    clip_audio,
    mini_models,


rule tags:
    """The sampled tag sets and the VAE's figures."""
    input:
        "<results>/tags/tags.parquet",
        "<results>/vae/metrics.json",


rule tag_models:
    """The tag model beside the paper's and three baselines (optional)."""
    input:
        "<results>/vae/models.parquet",
        "<results>/vae/models.json",


rule tag_sweep:
    """The runs among which the tag model's beta and crossover are chosen (optional)."""
    input:
        "<results>/vae/sweep.parquet",
        "<results>/vae/sweep.json",


rule taxonomy_proposal:
    """What the taxonomy's editor reads (optional)."""
    input:
        expand("<results>/taxonomy/{table}.csv", table=["unmapped", "heads", "tags"]),


rule captions:
    """The captions of every arm."""
    input:
        all_arm_files("<results>/captions/{arm}/{shard}.parquet"),


rule captions_all_arms:
    """The captions of every arm that there is, compared or not, in one format (optional)."""
    input:
        all_captions(),


rule audio:
    """The clips of every arm."""
    input:
        all_arm_files("<results>/audio/{arm}/{shard}.parquet"),


rule scores:
    """The text, CLAP and FAD scores."""
    input:
        expand("<results>/scores/{metric}.json", metric=["text", "clap", "fad"]),


rule tcav:
    """The genre classifier, its TCAV scores, and the audit of the concepts."""
    input:
        "<results>/gtzan/metrics.json",
        "<results>/tcav/scores.parquet",
        "<results>/audit/metrics.json",


rule dataset:
    """The dataset table and its hub folder."""
    input:
        "<results>/conceptcaps.parquet",
        "<results>/hub",


rule webdataset:
    """The dataset as WebDataset shards (optional)."""
    input:
        "<results>/webdataset",


rule push:
    """What would be sent to the hub; sent where `push.send` is true (optional)."""
    input:
        "<results>/push.json",


rule scorecard:
    """The paper's claims beside what this run measured."""
    input:
        "<results>/scorecard.json",


rule explorer:
    """A page to browse, hear and compare the clips (optional)."""
    input:
        "<results>/explorer",


rule figures:
    """The figures of the report."""
    input:
        expand("<results>/figures/{figure}.png", figure=FIGURES),


rule clip_audio:
    """MusicCaps' own clips, as far as they can still be downloaded (optional)."""
    input:
        expand("<results>/musiccaps/audio/{shard}.parquet", shard=clip_audio_shards()),


rule mini_models:
    """The small models of the miniature world, trained anew, and their checksums."""
    input:
        expand("<mini_models>/{model}", model=MINI_MODELS),
        "<mini_models>/SHA256SUMS",
