"""Play the captions; collect clips that are not played here.

inputs:  <results>/captions/{arm}/{shard}.parquet, a MusicGen checkpoint; folders of clips
outputs: <results>/audio/{arm}/{shard}.parquet (FLAC bytes and codes) with ledgers; takes/ has what was
         measured of every clip that was played
steps:   generate_audio; optional collect_recordings
"""


rule generate_audio:
    """Generate the clips of one shard; resumes inside the shard after a kill."""
    input:
        captions="<results>/captions/{arm}/{shard}.parquet",
        model=local("audio.model", "audio.revision"),
    output:
        audio=f"<results>/audio/{{arm,{PLAYED}}}/{{shard}}.parquet",
        ledger=f"<results>/audio/{{arm,{PLAYED}}}/ledger/{{shard}}.parquet",
        takes=f"<results>/audio/{{arm,{PLAYED}}}/takes/{{shard}}.parquet",
    log:
        "<logs>/generate_audio/{arm}/{shard}.log",
    benchmark:
        "<benchmarks>/generate_audio/{arm}/{shard}.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=grows(240),
    params:
        audio=section("audio"),
        gates=gates("audio"),
        seed=setting("seed"),
        code=fingerprint("generate_audio"),
    script:
        "../workflow/scripts/generate_audio.py"


rule collect_recordings:
    """Collect one shard of clips that are not played here: a folder's, or MusicCaps' own."""
    input:
        unpack(recorded_clips),
    output:
        audio=f"<results>/audio/{{arm,{RECORDED}}}/{{shard}}.parquet",
        captions=f"<results>/captions/{{arm,{RECORDED}}}/{{shard}}.parquet",
        ledger=f"<results>/audio/{{arm,{RECORDED}}}/ledger/{{shard}}.parquet",
    log:
        "<logs>/collect_recordings/{arm}/{shard}.log",
    benchmark:
        "<benchmarks>/collect_recordings/{arm}/{shard}.tsv"
    conda:
        "../envs/audio.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(30),
    params:
        folder=recorded_folder,
        gates=gates("audio"),
        shard_items=setting("shards.items"),
        code=fingerprint("collect_recordings"),
    script:
        "../workflow/scripts/collect_recordings.py"
