"""Get the two sources, the MusicCaps table and a genre corpus, and check what arrived.

inputs:  the hub, a local file or folder, or nothing (synthetic), as the config says
outputs: <results>/musiccaps/clips.parquet, <results>/gtzan/clips.parquet and its ledger;
         on request <results>/musiccaps/audio/{shard}.parquet
steps:   retrieve_musiccaps, retrieve_gtzan; optional retrieve_clip_audio
"""


rule retrieve_musiccaps:
    """Read the MusicCaps table, verify its checksum and its columns."""
    input:
        file=source_file("sources.musiccaps", "file"),
    output:
        clips=ensure("<results>/musiccaps/clips.parquet", non_empty=True),
    log:
        "<logs>/retrieve_musiccaps.log",
    benchmark:
        "<benchmarks>/retrieve_musiccaps.tsv"
    retries: 2 if setting("sources.musiccaps.kind") == "hub" else 0
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(2000),
        runtime=grows(15),
    params:
        source=section("sources.musiccaps"),
        seed=setting("seed"),
        code=fingerprint("retrieve_musiccaps"),
    script:
        "../workflow/scripts/retrieve_musiccaps.py"


rule retrieve_clip_audio:
    """Download one shard of MusicCaps' own clips; every refusal gets its reason in the ledger.

    No `retries`: the code has its own, with pauses; a shard that starts again at once would ask a
    site that has just refused. `downloads` is limited by the profiles: the pace is each job's own.
    """
    input:
        clips="<results>/musiccaps/clips.parquet",
    output:
        audio="<results>/musiccaps/audio/{shard}.parquet",
        ledger="<results>/musiccaps/audio/ledger/{shard}.parquet",
    log:
        "<logs>/retrieve_clip_audio/{shard}.log",
    benchmark:
        "<benchmarks>/retrieve_clip_audio/{shard}.tsv"
    retries: 0
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        downloads=1,
        mem_mb=grows(2000),
        runtime=grows(120),
    params:
        clip_audio=section("sources.clip_audio"),
        gates=gates("sources.clip_audio"),
        shard_items=setting("shards.items"),
        code=fingerprint("retrieve_clip_audio"),
    script:
        "../workflow/scripts/retrieve_clip_audio.py"


rule retrieve_gtzan:
    """Read the genre corpus into one table; corrupt clips are listed in the ledger."""
    input:
        files=genre_files(),
    output:
        clips=ensure("<results>/gtzan/clips.parquet", non_empty=True),
        ledger="<results>/gtzan/ledger.parquet",
    log:
        "<logs>/retrieve_gtzan.log",
    benchmark:
        "<benchmarks>/retrieve_gtzan.tsv"
    retries: 2 if setting("gtzan.kind") == "hub" else 0
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(8000),
        runtime=grows(60),
    params:
        source=section(
            "gtzan",
            "kind",
            "path",
            "revision",
            "sampling_rate_hz",
            "clips_per_genre",
            "clip_s",
        ),
        gates=gates("gtzan"),
        seed=setting("seed"),
        code=fingerprint("retrieve_gtzan"),
    script:
        "../workflow/scripts/retrieve_gtzan.py"
