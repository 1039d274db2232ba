"""Teach the language model to write captions from tags, then write them, arm by arm.

inputs:  <results>/distill/pairs.parquet, <results>/tags/tags.parquet, the base model
outputs: <results>/captioner/adapter, <results>/captions/{arm}/{shard}.parquet with ledgers and drafts,
         <results>/captions/{arm}/heldout.parquet
steps:   finetune_captioner, generate_captions, generate_heldout_captions
"""


rule finetune_captioner:
    """QLoRA fine-tuning on the training pairs; refuses an adapter that changes nothing."""
    input:
        pairs="<results>/distill/pairs.parquet",
        model=local("captioner.base.model", "captioner.base.revision"),
        prompts=setting("captioner.base.prompts"),
    output:
        adapter=directory("<results>/captioner/adapter"),
        metrics="<results>/captioner/metrics.json",
    log:
        "<logs>/finetune_captioner.log",
    benchmark:
        "<benchmarks>/finetune_captioner.tsv"
    conda:
        "../envs/text.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=grows(48000),
        runtime=grows(240),
    params:
        base=section("captioner.base"),
        finetune=section("captioner.finetune"),
        gates=gates("captioner.finetune"),
        seed=setting("seed"),
        code=fingerprint("finetune_captioner"),
    script:
        "../workflow/scripts/finetune_captioner.py"


rule generate_captions:
    """Write the captions of one shard of tag sets; why the table is ancient: see plan_tags.

    The dataset's own captions pass the gate.
    """
    input:
        tags=ancient("<results>/tags/tags.parquet"),
        plan="<results>/tags/plan.json",
        pairs="<results>/distill/pairs.parquet",
        taxonomy=setting("distill.taxonomy"),
        adapter=adapter,
        model=local("captioner.base.model", "captioner.base.revision"),
        prompts=setting("captioner.base.prompts"),
    output:
        captions="<results>/captions/{arm}/{shard}.parquet",
        ledger="<results>/captions/{arm}/ledger/{shard}.parquet",
        drafts="<results>/captions/{arm}/drafts/{shard}.parquet",
    log:
        "<logs>/generate_captions/{arm}/{shard}.log",
    benchmark:
        "<benchmarks>/generate_captions/{arm}/{shard}.tsv"
    conda:
        "../envs/text.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=grows(60),
    params:
        base=section("captioner.base"),
        generate=section("captioner.generate"),
        gates=gates("captioner.generate"),
        gate=section("captioner.gate"),
        shard_items=setting("shards.items"),
        last_item=last_item,
        seed=setting("seed"),
        code=fingerprint("generate_captions"),
    script:
        "../workflow/scripts/generate_captions.py"


rule generate_heldout_captions:
    """Write captions for the tags of held-out human pairs, for the text metrics."""
    input:
        pairs="<results>/distill/pairs.parquet",
        adapter=adapter,
        model=local("captioner.base.model", "captioner.base.revision"),
        prompts=setting("captioner.base.prompts"),
    output:
        captions="<results>/captions/{arm}/heldout.parquet",
    log:
        "<logs>/generate_heldout_captions/{arm}.log",
    benchmark:
        "<benchmarks>/generate_heldout_captions/{arm}.tsv"
    conda:
        "../envs/text.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=grows(60),
    params:
        base=section("captioner.base"),
        generate=section("captioner.generate"),
        gates=gates("captioner.generate"),
        n_items=setting("scores.text.heldout_items"),
        seed=setting("seed"),
        code=fingerprint("generate_heldout_captions"),
    script:
        "../workflow/scripts/generate_heldout_captions.py"
