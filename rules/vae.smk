"""Learn which tags go together, then sample new tag sets.

inputs:  <results>/distill/pairs.parquet, <results>/distill/taxonomy.json, the taxonomy file
outputs: <results>/vae/ (model, config, metrics, training history), <results>/tags/tags.parquet
steps:   fit_vae, sample_tags
"""

VAE = f"vae.presets.{setting('vae.preset')}"


rule fit_vae:
    """Fit the beta-VAE; report held-out reconstruction and prior samples separately."""
    input:
        pairs="<results>/distill/pairs.parquet",
        taxonomy="<results>/distill/taxonomy.json",
    output:
        model="<results>/vae/model.safetensors",
        config="<results>/vae/config.json",
        metrics="<results>/vae/metrics.json",
        history="<results>/vae/history.parquet",
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
        sampling=section("tags", "prior", "prior_components", "min_categories"),
        seed=setting("seed"),
        code=fingerprint("fit_vae"),
    script:
        "../workflow/scripts/fit_vae.py"


rule sample_tags:
    """Sample distinct tag sets that cover enough categories."""
    input:
        model="<results>/vae/model.safetensors",
        config="<results>/vae/config.json",
        taxonomy=setting("distill.taxonomy"),
    output:
        tags=ensure("<results>/tags/tags.parquet", non_empty=True),
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
        tags=section("tags", "items", "min_categories", "max_tags", "max_candidates_per_item"),
        seed=setting("seed"),
        code=fingerprint("sample_tags"),
    script:
        "../workflow/scripts/sample_tags.py"
