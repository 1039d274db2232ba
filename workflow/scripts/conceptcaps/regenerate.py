"""Play one clip of a finished run again, from the run's own record, and compare its tokens.

    python -m conceptcaps.regenerate results 7a3ebea4... [--arm conceptcaps] [--output clip.flac]

The config, the caption and the seed are those that the run wrote down. In float32 on a CPU the
tokens are the same to the last; in half precision or on a GPU some may differ, and the share of
equal ones is said. Exits with 1 when the hashes differ.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from conceptcaps import clips, io, musicgen
from conceptcaps.errors import InputError, nearest


@dataclass(frozen=True)
class Again:
    """A clip as it is stored and as it was played again."""

    stored: dict  # its row of `schemas.AUDIO`
    codes: np.ndarray  # played again, [K, T] int16
    flac: bytes  # with the level that the stored clip has

    @property
    def codes_sha256(self) -> str:
        """Return the hash of the tokens that were played again."""
        return clips.pack_codes(self.codes)["codes_sha256"]

    @property
    def same_tokens(self) -> float:
        """Return the share of equal tokens; 0 where the clips are of different lengths."""
        stored = clips.unpack_codes(self.stored)
        return float((stored == self.codes).mean()) if stored.shape == self.codes.shape else 0.0


def regenerate(results: str | Path, clip_id: str, *, arm: str = "conceptcaps") -> Again:
    """Play the clip `clip_id` of a run again.

    Args:
        results: directory of a run's results.
        clip_id: of a clip in `results/audio/<arm>`.
        arm: whose clip.

    Raises:
        InputError: the directory is not of a run, the arm or the clip is not in it, or its model
            cannot be loaded.
    """
    results = Path(results)
    try:
        spec = musicgen.Spec.of(yaml.safe_load((results / "run/config.yaml").read_text())["audio"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(
            f"{results}: is not the results of a run of this version: run/config.yaml cannot be "
            f"read ({type(error).__name__}: {error})."
        ) from error
    shard, row = _find(results / "audio" / arm, clip_id)
    captions = io.read_rows(results / "captions" / arm / shard.name, ["id", "caption"])
    caption = {one["id"]: one["caption"] for one in captions}[clip_id]
    if row["model"] != musicgen.resolve_model(spec.model, spec.revision):
        raise InputError(
            f"{clip_id} was played by {row['model']}, but run/config.yaml names {spec.model}. "
            "Make the shard anew."
        )
    generator = musicgen.load_generator(replace(spec, batch_size=1))
    codes, _ = generator.compose([caption], [row["seed"]])
    wave = generator.waves(codes.cpu())[0] * 10 ** (row["gain_db"] / 20)
    flac, _ = clips.encode_flac(wave, row["sampling_rate"], peak=1.0)
    return Again(row, codes[0].cpu().numpy().astype(np.int16), flac)


def _find(directory: Path, clip_id: str) -> tuple[Path, dict]:
    """Return the shard that holds a clip and the clip's row."""
    shards = sorted(directory.glob("*.parquet"))
    if not shards:
        raise InputError(f"{directory}: there are no clips. Name the results and an arm of a run.")
    known = []
    for shard in shards:
        ids = io.read_table(shard, ["id"])["id"].to_pylist()
        if clip_id in ids:
            return shard, io.read_rows(shard)[ids.index(clip_id)]
        known += ids
    raise InputError(
        f"{directory}: there is no clip '{clip_id}' among {len(known)}.{nearest(clip_id, known)} "
        "The ledger beside the clips says why a clip was lost."
    )


def main() -> None:
    """Regenerate the clip that the command line names and say whether it is the same."""
    parser = argparse.ArgumentParser(prog="conceptcaps.regenerate", description=__doc__)
    parser.add_argument("results", help="directory of a run's results")
    parser.add_argument("id", help="of the clip")
    parser.add_argument("--arm", default="conceptcaps", help="whose clip (default: %(default)s)")
    parser.add_argument("--output", help="write the clip to this FLAC file")
    options = parser.parse_args()
    try:
        again = regenerate(options.results, options.id, arm=options.arm)
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
    if options.output:
        with io.atomic(options.output) as temporary:
            temporary.write_bytes(again.flac)
    stored = again.stored["codes_sha256"]
    print(f"stored {stored}\nplayed {again.codes_sha256}")
    if again.codes_sha256 != stored:
        raise SystemExit(f"different: {again.same_tokens:.2%} of the tokens are equal")
    same = again.flac == again.stored["audio"]["bytes"]
    print(f"the same tokens; {'the same' if same else 'other'} FLAC bytes")


if __name__ == "__main__":
    main()
