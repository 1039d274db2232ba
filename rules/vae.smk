"""Learn which tags go together, then sample new tag sets.

inputs:  <results>/distill/pairs.parquet, <results>/distill/taxonomy.json, the taxonomy file
outputs: <results>/vae/ (model, config, metrics, training history, latent places), <results>/tags/ (plan, sets, metrics)
steps:   fit_vae, plan_tags, sample_tags; on demand compare_tagmodels, sweep_vae
"""

SAMPLING = [key for key in setting("tags") if key not in ("items", "prior", *GATES)]
VAE = f"vae.presets.{setting('vae.preset')}"
SWEPT = ("beta", "crossover")


rule fit_vae:
    """Fit the beta-VAE; report held-out reconstruction and prior samples separately."""
    input:
        pairs="<results>/distill/pairs.parquet",
        taxonomy="<results>/distill/taxonomy.json",
        taxonomy_file=setting("distill.taxonomy"),
    output:
        model="<results>/vae/model.safetensors",
        config="<results>/vae/config.json",
        metrics="<results>/vae/metrics.json",
        history="<results>/vae/history.parquet",
        latent="<results>/vae/latent.parquet",
    log:
        "<logs>/fit_vae.log",
    benchmark:
        "<benchmarks>/fit_vae.tsv"
    conda:
        "../envs/core.yaml"
    threads: 4
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        preset=section(VAE),
        sampling=section("tags", "prior", "min_categories", "max_tags"),
        seed=setting("seed"),
        code=fingerprint("fit_vae"),
    script:
        "../workflow/scripts/fit_vae.py"


localrules:
    plan_tags,


rule plan_tags:
    """Write down what the tag sets depend on, all but their number.

    The first sets stay the same when there are more of them: a stage that makes shards of them
    depends on this, and takes the growing table itself as ancient, so that only new shards are made.
    """
    input:
        model="<results>/vae/model.safetensors",
        config="<results>/vae/config.json",
        pairs="<results>/distill/pairs.parquet",
        taxonomy=setting("distill.taxonomy"),
    output:
        plan="<results>/tags/plan.json",
    log:
        "<logs>/plan_tags.log",
    benchmark:
        "<benchmarks>/plan_tags.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    params:
        tags=section("tags", *SAMPLING),
        seed=setting("seed"),
        sampler=fingerprint("sample_tags"),
        code=fingerprint("plan_tags"),
    script:
        "../workflow/scripts/plan_tags.py"


rule sample_tags:
    """Sample distinct, new and coherent tag sets, with enough of every tag."""
    input:
        plan="<results>/tags/plan.json",
        model="<results>/vae/model.safetensors",
        config="<results>/vae/config.json",
        pairs="<results>/distill/pairs.parquet",
        taxonomy=setting("distill.taxonomy"),
    output:
        tags=ensure("<results>/tags/tags.parquet", non_empty=True),
        metrics="<results>/tags/metrics.json",
    log:
        "<logs>/sample_tags.log",
    benchmark:
        "<benchmarks>/sample_tags.tsv"
    conda:
        "../envs/core.yaml"
    threads: 4
    resources:
        mem_mb=grows(4000),
        runtime=grows(60),
    params:
        tags=section("tags", "items", *SAMPLING),
        gates=gates("tags"),
        seed=setting("seed"),
        code=fingerprint("sample_tags"),
    script:
        "../workflow/scripts/sample_tags.py"


rule compare_tagmodels:
    """On demand: the VAE's presets and three baselines, fitted and measured alike."""
    input:
        pairs="<results>/distill/pairs.parquet",
        taxonomy="<results>/distill/taxonomy.json",
        taxonomy_file=setting("distill.taxonomy"),
    output:
        table="<results>/vae/models.parquet",
        metrics="<results>/vae/models.json",
    log:
        "<logs>/compare_tagmodels.log",
    benchmark:
        "<benchmarks>/compare_tagmodels.tsv"
    conda:
        "../envs/core.yaml"
    threads: 4
    resources:
        mem_mb=grows(6000),
        runtime=grows(60),
    params:
        compared=section("vae.compared"),
        presets=section("vae.presets", *setting("vae.compared")),
        baselines=section("vae.baselines"),
        limits=section("tags", "min_categories", "max_tags"),
        seed=setting("seed"),
        code=fingerprint("compare_tagmodels"),
    script:
        "../workflow/scripts/compare_tagmodels.py"


rule sweep_vae:
    """On demand: a table of runs over beta and crossover, and the choice on validation rows."""
    input:
        pairs="<results>/distill/pairs.parquet",
        taxonomy="<results>/distill/taxonomy.json",
        taxonomy_file=setting("distill.taxonomy"),
    output:
        table="<results>/vae/sweep.parquet",
        metrics="<results>/vae/sweep.json",
    log:
        "<logs>/sweep_vae.log",
    benchmark:
        "<benchmarks>/sweep_vae.tsv"
    conda:
        "../envs/core.yaml"
    threads: 4
    resources:
        mem_mb=grows(4000),
        runtime=grows(120),
    params:
        sweep=section("vae.sweep"),
        preset=section(VAE, *(key for key in setting(VAE) if key not in SWEPT)),
        sampling=section("tags", "prior", "min_categories", "max_tags"),
        seed=setting("seed"),
        code=fingerprint("sweep_vae"),
    script:
        "../workflow/scripts/sweep_vae.py"
