#!/usr/bin/env bash
# Snakemake runs this in the new environment of audio.yaml, once. See requirements-no-deps.txt.
set -euo pipefail

python -m pip install --no-deps audiocraft==1.3.0 laion-clap==1.1.7
