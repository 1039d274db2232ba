"""ConceptCaps: the library behind the workflow's rules, one noun per module, in pipeline order.

musiccaps -> taxonomy -> distill -> vae -> captioner -> captions -> musicgen -> clap -> frechet,
textmetrics -> gtzan -> genrecnn -> tcav -> export. `synth`, `grammar` and `minimodels` make the
miniature world. Nothing in here knows Snakemake.
"""
