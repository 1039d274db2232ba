"""Play the captions.

inputs:  <results>/captions/{arm}/{shard}.parquet, a MusicGen checkpoint
outputs: <results>/audio/{arm}/{shard}.parquet (FLAC bytes and codes) with ledgers; takes/ has what was
         measured of every clip that was played
steps:   generate_audio
"""


rule generate_audio:
    """Generate the clips of one shard; resumes inside the shard after a kill."""
    input:
        captions="<results>/captions/{arm}/{shard}.parquet",
        model=local("audio.model", "audio.revision"),
    output:
        audio="<results>/audio/{arm}/{shard}.parquet",
        ledger="<results>/audio/{arm}/ledger/{shard}.parquet",
        takes="<results>/audio/{arm}/takes/{shard}.parquet",
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
