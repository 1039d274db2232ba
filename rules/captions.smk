"""Teach the language model to write captions from tags, then write them, arm by arm.

inputs:  <results>/distill/pairs.parquet, <results>/tags/tags.parquet, the base model
outputs: <results>/captioner/adapter, <results>/captions/{arm}/{shard}.parquet with ledgers and drafts,
         <results>/captions/{arm}/heldout.parquet
steps:   finetune_captioner, generate_captions, generate_heldout_captions;
         collect_captions, collect_heldout_captions: of arms that no model writes
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
        history="<results>/captioner/history.parquet",
    log:
        "<logs>/finetune_captioner.log",
    benchmark:
        "<benchmarks>/finetune_captioner.tsv"
    conda:
        "../envs/text.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=grows(32000),
        runtime=grows(240),
    params:
        base=section("captioner.base"),
        finetune=section_with_preset("captioner.finetune"),
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
        prompts=prompts_of_arm,
        artists=optional_file("captioner.gate.artists"),
    output:
        captions=f"<results>/captions/{{arm,{GENERATED}}}/{{shard}}.parquet",
        ledger=f"<results>/captions/{{arm,{GENERATED}}}/ledger/{{shard}}.parquet",
        drafts=f"<results>/captions/{{arm,{GENERATED}}}/drafts/{{shard}}.parquet",
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
        prompts=prompts_of_arm,
    output:
        captions=f"<results>/captions/{{arm,{GENERATED}}}/heldout.parquet",
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


rule collect_captions:
    """Write the captions of one shard that no model writes: human, by rule, or brought in a file."""
    input:
        pairs="<results>/distill/pairs.parquet",
        brought=brought_captions,
    output:
        captions=f"<results>/captions/{{arm,{COLLECTED}}}/{{shard}}.parquet",
        ledger=f"<results>/captions/{{arm,{COLLECTED}}}/ledger/{{shard}}.parquet",
        drafts=f"<results>/captions/{{arm,{COLLECTED}}}/drafts/{{shard}}.parquet",
    log:
        "<logs>/collect_captions/{arm}/{shard}.log",
    benchmark:
        "<benchmarks>/collect_captions/{arm}/{shard}.tsv"
    conda:
        "../envs/text.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        gates=gates("captioner.generate"),
        shard_items=setting("shards.items"),
        last_item=last_item,
        code=fingerprint("collect_captions"),
    script:
        "../workflow/scripts/collect_captions.py"


rule collect_heldout_captions:
    """Write the captions of held-out pairs that no model writes."""
    input:
        pairs="<results>/distill/pairs.parquet",
        brought=brought_captions,
    output:
        captions=f"<results>/captions/{{arm,{COLLECTED}}}/heldout.parquet",
    log:
        "<logs>/collect_heldout_captions/{arm}.log",
    benchmark:
        "<benchmarks>/collect_heldout_captions/{arm}.tsv"
    conda:
        "../envs/text.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        n_items=setting("scores.text.heldout_items"),
        code=fingerprint("collect_heldout_captions"),
    script:
        "../workflow/scripts/collect_heldout_captions.py"
