"""MusicGen checkpoints between audiocraft's format and that of transformers.

    python -m conceptcaps.conversion SOURCE OUTPUT [--text-encoder ID] [--codec ID] [--duration S]

Only the language model's weights are converted: text encoder and codec are models of their own,
which audiocraft's format names (`t5-base` and `facebook/encodec_32khz` for the published
checkpoints) and that of transformers contains.
"""

import argparse
from pathlib import Path

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from transformers import (
    AutoTokenizer,
    EncodecModel,
    MusicgenDecoderConfig,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
    T5EncoderModel,
)

from conceptcaps import io
from conceptcaps.errors import InputError
from conceptcaps.musicgen import first_line
from conceptcaps.musicgen_audiocraft import FILES

_RENAMED = (  # part of a weight's name in transformers' decoder, in audiocraft's model
    ("model.decoder.layer_norm.", "out_norm."),
    ("model.decoder.embed_tokens.", "emb."),
    ("model.decoder.layers.", "transformer.layers."),
    ("lm_heads.", "linears."),
    (".self_attn_layer_norm.", ".norm1."),
    (".encoder_attn_layer_norm.", ".norm_cross."),
    (".final_layer_norm.", ".norm2."),
    (".encoder_attn.", ".cross_attention."),
    (".fc1.", ".linear1."),
    (".fc2.", ".linear2."),
)
_FUSED = ("q_proj.weight", "k_proj.weight", "v_proj.weight")  # one matrix in audiocraft
_PROJECTED = ("weight", "bias")  # of the text's states, from T5's width to the decoder's
_PROJECTION = "condition_provider.conditioners.description.output_proj."


def to_transformers(source: str | Path, output: str | Path) -> None:
    """Write a checkpoint of audiocraft as a directory that `audio.backend: engine` plays.

    Args:
        source: directory with `musicgen_audiocraft.FILES`; what it names is in the hub's cache.
        output: directory to write.

    Raises:
        InputError: it is not a text-to-music MusicGen, has other weights than one, or its text
            encoder or codec are missing.
    """
    language, codec = (_read(Path(source) / name) for name in FILES)
    if "pretrained" not in codec:
        raise InputError(f"{source}: its codec is not one that a hub has, as must be.")
    config = OmegaConf.create(language["xp.cfg"])
    if list(config.conditioners) not in (["description"], ["args", "description"]):
        raise InputError(f"{source}: is conditioned on {list(config.conditioners)}, not on text.")
    name, lm = config.conditioners.description.t5.name, config.transformer_lm
    loaded = {
        "text_encoder": _load(T5EncoderModel, name),
        "audio_encoder": _load(EncodecModel, codec["pretrained"]),
    }
    decoder = MusicgenForCausalLM(
        MusicgenDecoderConfig(
            vocab_size=lm.card,
            hidden_size=lm.dim,
            ffn_dim=int(lm.hidden_scale * lm.dim),
            num_hidden_layers=lm.num_layers,
            num_attention_heads=lm.num_heads,
            num_codebooks=lm.n_q,
            audio_channels=2 if lm.n_q == 2 * loaded["audio_encoder"].config.num_quantizers else 1,
            activation_function=lm.activation,
            pad_token_id=lm.card,
            bos_token_id=lm.card,
        )
    )
    model = MusicgenForConditionalGeneration(decoder=decoder, **loaded)
    theirs = {key: value.float() for key, value in language["best_state"].items()}
    known = {_audiocraft_name(key) for key in decoder.state_dict()}
    known |= {_PROJECTION + part for part in _PROJECTED}
    if odd := sorted(known ^ theirs.keys()):
        is_there = "and there is" if odd[0] in theirs else "and there is no"
        raise InputError(
            f"{source}: its weights are not those of a MusicGen: {len(odd)} differ, "
            f"{is_there} {odd[0]}."
        )
    try:
        decoder.load_state_dict(
            {key: _from_audiocraft(key, theirs) for key in decoder.state_dict()}, assign=True
        )
        model.enc_to_dec_proj.load_state_dict(
            {part: theirs[_PROJECTION + part] for part in _PROJECTED}, assign=True
        )
    except RuntimeError as error:  # torch lists the weights of another size
        raise InputError(
            f"{source}: its weights do not have the sizes that its xp.cfg says ({error})."
        ) from error
    model.generation_config.update(
        pad_token_id=lm.card, bos_token_id=lm.card, decoder_start_token_id=lm.card
    )
    with io.atomic(output) as directory:
        model.save_pretrained(directory)
        _load(AutoTokenizer, name).save_pretrained(directory)


def to_audiocraft(
    source: str | Path,
    output: str | Path,
    *,
    text_encoder: str,
    codec: str,
    duration_s: float,
) -> None:
    """Write a checkpoint of transformers as a directory that `audio.backend: audiocraft` plays.

    Args:
        source: directory of a MusicgenForConditionalGeneration.
        output: directory to write.
        text_encoder: hub id, in the hub's cache, of the checkpoint's own text encoder.
        codec: the same of its codec.
        duration_s: the longest clip that it was trained for, in seconds.

    Raises:
        InputError: the checkpoint's text encoder or codec are not those that are named.
    """
    model = _load(MusicgenForConditionalGeneration, str(source))
    for kind, id, own in (
        (T5EncoderModel, text_encoder, model.text_encoder),
        (EncodecModel, codec, model.audio_encoder),
    ):
        named, own = _load(kind, id).state_dict(), own.state_dict()
        if named.keys() != own.keys() or any(not torch.equal(named[k], own[k]) for k in own):
            raise InputError(f"{source}: its {kind.__name__} is not that of {id}: name its own.")
    settings, weights = language_model(model, text_encoder=text_encoder, duration_s=duration_s)
    package = {"xp.cfg": OmegaConf.to_yaml(settings), "best_state": weights}
    with io.atomic(output) as directory:
        directory.mkdir()
        torch.save(package, directory / FILES[0])
        torch.save({"pretrained": codec}, directory / FILES[1])


def language_model(
    model: MusicgenForConditionalGeneration, *, text_encoder: str, duration_s: float
) -> tuple[dict, dict[str, torch.Tensor]]:
    """Return what audiocraft builds the same language model from: its config, and its weights.

    See `to_audiocraft` for the arguments.
    """
    ours, theirs = model.decoder.state_dict(), {}
    for name, value in ours.items():
        if name.endswith(_FUSED[0]):
            stem = name.removesuffix(_FUSED[0])
            value = torch.cat([ours[stem + part] for part in _FUSED])
        theirs[_audiocraft_name(name)] = value.clone()
    for part, value in model.enc_to_dec_proj.state_dict().items():
        theirs[_PROJECTION + part] = value.clone()
    return _settings(model.config.decoder, text_encoder, duration_s), theirs


def _settings(decoder: MusicgenDecoderConfig, text_encoder: str, duration_s: float) -> dict:
    books, stereo = decoder.num_codebooks, decoder.audio_channels == 2
    delays = [book // decoder.audio_channels for book in range(books)]
    return {
        "lm_model": "transformer_lm",
        "dataset": {"segment_duration": duration_s},
        "transformer_lm": {
            "dim": decoder.hidden_size,
            "num_heads": decoder.num_attention_heads,
            "num_layers": decoder.num_hidden_layers,
            "hidden_scale": decoder.ffn_dim / decoder.hidden_size,
            "n_q": books,
            "card": decoder.vocab_size,
            "activation": decoder.activation_function,
            "norm_first": True,
            "bias_proj": False,
            "bias_ff": False,
            "bias_attn": False,
            "causal": True,
            "custom": False,
            "memory_efficient": True,
            "cross_attention": True,
        },
        "codebooks_pattern": {"modeling": "delay", "delay": {"delays": delays}},
        "interleave_stereo_codebooks": {"use": stereo, "per_timestep": False},
        "classifier_free_guidance": {"training_dropout": 0.0, "inference_coef": 3.0},
        "attribute_dropout": {},
        "fuser": {"cross": ["description"], "sum": [], "prepend": [], "input_interpolate": []},
        "conditioners": {
            "description": {
                "model": "t5",
                "t5": {"name": text_encoder, "finetune": False, "word_dropout": 0.0},
            }
        },
    }


def _audiocraft_name(name: str) -> str:
    """Return audiocraft's name of a weight of transformers' decoder."""
    for ours, theirs in _RENAMED:
        name = name.replace(ours, theirs)
    for part in _FUSED:
        name = name.replace(part, "in_proj_weight")
    return name


def _from_audiocraft(name: str, theirs: dict[str, torch.Tensor]) -> torch.Tensor:
    value = theirs[_audiocraft_name(name)].float()
    for k, part in enumerate(_FUSED):
        if name.endswith(part):
            return value.chunk(3)[k].clone()
    return value


def _read(path: Path) -> dict:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes lead it to
        raise InputError(
            f"{path}: is not a file of an audiocraft checkpoint ({first_line(error)})."
        ) from error


def _load(kind, id: str):
    try:
        return kind.from_pretrained(id)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(
            f"{id}: cannot be loaded as {kind.__name__} ({first_line(error)}). Check its name, the "
            "network, or HF_HOME."
        ) from error


def main() -> None:
    """Convert a checkpoint to the other format."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="directory of a checkpoint, in either format")
    parser.add_argument("output", type=Path, help="directory to write")
    of_audiocraft = parser.add_argument_group("what a checkpoint of audiocraft says of itself")
    of_audiocraft.add_argument("--text-encoder", default="t5-base", help="hub id (%(default)s)")
    of_audiocraft.add_argument(
        "--codec", default="facebook/encodec_32khz", help="hub id (%(default)s)"
    )
    of_audiocraft.add_argument(
        "--duration", type=float, default=30.0, help="longest clip, in seconds (%(default)s)"
    )
    options = parser.parse_args()
    try:
        if (options.source / FILES[0]).is_file():
            to_transformers(options.source, options.output)
        else:
            to_audiocraft(
                options.source,
                options.output,
                text_encoder=options.text_encoder,
                codec=options.codec,
                duration_s=options.duration,
            )
    except InputError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
