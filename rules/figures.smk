"""Draw the report's figures, each as PNG and as vector.

inputs:  the stages' tables and figures
outputs: <results>/figures/{tags,distill,vae,latent,captioner,text,clap,genrecnn,tcav,cavs,coverage}.{png,svg}
steps:   plot_tags, plot_distill, plot_vae, plot_latent, plot_captioner, plot_text, plot_clap,
         plot_genrecnn, plot_tcav, plot_coverage
"""


rule plot_tags:
    """The tags: MusicCaps, the distilled pairs, the samples."""
    input:
        clips="<results>/musiccaps/clips.parquet",
        pairs="<results>/distill/pairs.parquet",
        tags="<results>/tags/tags.parquet",
    output:
        png=report(
            "<results>/figures/tags.png",
            caption="../workflow/report/tags.rst",
            category="Tags",
            labels={"figure": "tags: data and samples"},
        ),
        svg="<results>/figures/tags.svg",
    log:
        "<logs>/plot_tags.log",
    benchmark:
        "<benchmarks>/plot_tags.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        code=fingerprint("plot_tags"),
    script:
        "../workflow/scripts/plot_tags.py"


rule plot_distill:
    """What distillation does to MusicCaps: the paper's figures 3 and 4."""
    input:
        clips="<results>/musiccaps/clips.parquet",
        pairs="<results>/distill/pairs.parquet",
        tags="<results>/tags/tags.parquet",
        taxonomy=setting("distill.taxonomy"),
    output:
        png=report(
            "<results>/figures/distill.png",
            caption="../workflow/report/distill.rst",
            category="Tags",
            labels={"figure": "distillation"},
        ),
        svg="<results>/figures/distill.svg",
    log:
        "<logs>/plot_distill.log",
    benchmark:
        "<benchmarks>/plot_distill.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        code=fingerprint("plot_distill"),
    script:
        "../workflow/scripts/plot_distill.py"


rule plot_vae:
    """The VAE's training curve."""
    input:
        history="<results>/vae/history.parquet",
    output:
        png=report(
            "<results>/figures/vae.png",
            caption="../workflow/report/vae.rst",
            category="Tags",
            labels={"figure": "tag model: training"},
        ),
        svg="<results>/figures/vae.svg",
    log:
        "<logs>/plot_vae.log",
    benchmark:
        "<benchmarks>/plot_vae.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        code=fingerprint("plot_vae"),
    script:
        "../workflow/scripts/plot_vae.py"


rule plot_latent:
    """The VAE's latent space by genre: the paper's figure 2."""
    input:
        latent="<results>/vae/latent.parquet",
    output:
        png=report(
            "<results>/figures/latent.png",
            caption="../workflow/report/latent.rst",
            category="Tags",
            labels={"figure": "latent space"},
        ),
        svg="<results>/figures/latent.svg",
    log:
        "<logs>/plot_latent.log",
    benchmark:
        "<benchmarks>/plot_latent.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        seed=setting("seed"),
        code=fingerprint("plot_latent"),
    script:
        "../workflow/scripts/plot_latent.py"


rule plot_captioner:
    """The captioner's training curve."""
    input:
        history="<results>/captioner/history.parquet",
    output:
        png=report(
            "<results>/figures/captioner.png",
            caption="../workflow/report/captioner.rst",
            category="Captions",
            labels={"figure": "captioner: training"},
        ),
        svg="<results>/figures/captioner.svg",
    log:
        "<logs>/plot_captioner.log",
    benchmark:
        "<benchmarks>/plot_captioner.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        code=fingerprint("plot_captioner"),
    script:
        "../workflow/scripts/plot_captioner.py"


rule plot_text:
    """The text metrics of every arm."""
    input:
        scores="<results>/scores/text.json",
    output:
        png=report(
            "<results>/figures/text.png",
            caption="../workflow/report/text.rst",
            category="Captions",
            labels={"figure": "captions of every arm"},
        ),
        svg="<results>/figures/text.svg",
    log:
        "<logs>/plot_text.log",
    benchmark:
        "<benchmarks>/plot_text.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        code=fingerprint("plot_text"),
    script:
        "../workflow/scripts/plot_text.py"


rule plot_clap:
    """The CLAP scores of every arm."""
    input:
        scores="<results>/scores/clap.json",
    output:
        png=report(
            "<results>/figures/clap.png",
            caption="../workflow/report/clap.rst",
            category="Audio",
            labels={"figure": "CLAP scores"},
        ),
        svg="<results>/figures/clap.svg",
    log:
        "<logs>/plot_clap.log",
    benchmark:
        "<benchmarks>/plot_clap.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        code=fingerprint("plot_clap"),
    script:
        "../workflow/scripts/plot_clap.py"


rule plot_genrecnn:
    """The genre classifier's confusion matrix."""
    input:
        metrics="<results>/gtzan/metrics.json",
    output:
        png=report(
            "<results>/figures/genrecnn.png",
            caption="../workflow/report/genrecnn.rst",
            category="Concepts",
            labels={"figure": "genre classifier"},
        ),
        svg="<results>/figures/genrecnn.svg",
    log:
        "<logs>/plot_genrecnn.log",
    benchmark:
        "<benchmarks>/plot_genrecnn.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        code=fingerprint("plot_genrecnn"),
    script:
        "../workflow/scripts/plot_genrecnn.py"


rule plot_tcav:
    """TCAV scores, concept by genre; quality of the CAVs and their null distributions."""
    input:
        scores="<results>/tcav/scores.parquet",
    output:
        png=report(
            "<results>/figures/tcav.png",
            caption="../workflow/report/tcav.rst",
            category="Concepts",
            labels={"figure": "TCAV scores"},
        ),
        svg="<results>/figures/tcav.svg",
        cavs_png=report(
            "<results>/figures/cavs.png",
            caption="../workflow/report/cavs.rst",
            category="Concepts",
            labels={"figure": "CAVs and their null"},
        ),
        cavs_svg="<results>/figures/cavs.svg",
    log:
        "<logs>/plot_tcav.log",
    benchmark:
        "<benchmarks>/plot_tcav.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        code=fingerprint("plot_tcav"),
    script:
        "../workflow/scripts/plot_tcav.py"


rule plot_coverage:
    """The dataset's clips of every tag of the taxonomy, and what each tag is met with."""
    input:
        dataset="<results>/conceptcaps.parquet",
        taxonomy="<results>/distill/taxonomy.json",
    output:
        png=report(
            "<results>/figures/coverage.png",
            caption="../workflow/report/coverage.rst",
            category="Dataset",
            labels={"figure": "coverage of the taxonomy"},
        ),
        svg="<results>/figures/coverage.svg",
    log:
        "<logs>/plot_coverage.log",
    benchmark:
        "<benchmarks>/plot_coverage.tsv"
    conda:
        "../envs/core.yaml"
    threads: 1
    resources:
        mem_mb=grows(4000),
        runtime=grows(20),
    params:
        code=fingerprint("plot_coverage"),
    script:
        "../workflow/scripts/plot_coverage.py"
