"""The miniature codec: a small EnCodec (Defossez et al. 2022) trained on synthesised clips."""

import math
import time
from pathlib import Path
from types import SimpleNamespace

import librosa
import numpy as np
import torch
from torch import nn
from transformers import EncodecConfig, EncodecFeatureExtractor, EncodecModel

from conceptcaps import grammar, mini_training, runlog, seeding, synth

CODEBOOKS, CODES = 4, 256
_WINDOWS = ((128, 10), (256, 20), (512, 40), (1024, 80), (2048, 128))  # samples, mel bands
_CROP_S = 1.0
_SHORTENED_SHARE = 0.3  # of the clips of a batch: played from fewer codebooks
_KMEANS_CROPS = 100  # 2,500 latents for 256 codes
_DECAY = 0.99  # of the codebooks' running means
_HELD_OUT_CLIPS = 100
_DEAD = 0.03  # a code chosen less often than this many times a batch is drawn anew


def train(*, spec: dict, world: dict, seed: int, output: str | Path) -> None:
    """Train an EnCodec with 4 codebooks of 256 codes at a hop of 640 samples.

    The first half of the steps trains a plain autoencoder; then k-means sets the codebooks, and the
    second half trains through them.

    Args:
        spec: steps, batch_size, learning_rate, clips (config: mini.codec).
        world: clip_s in seconds, sampling_rate_hz (config: mini).
        seed: global seed.
        output: model directory to write, with the feature extractor.

    **Differs:** no discriminator, and a loss on magnitudes only: phases come out as they like.
    """
    started = time.monotonic()
    seeding.seed_everything(seed)
    rate = world["sampling_rate_hz"]
    _, waves = synthesise(spec["clips"], world=world, seed=seed)
    codec = EncodecModel(build_config(rate))
    scale_layers(codec, waves[:16, None, : 2 * rate])
    trainer = Trainer(codec)
    half = spec["steps"] // 2

    def batch_of(step: int) -> dict:
        if step == half:
            trainer.set_codebooks(
                _crops(waves, _KMEANS_CROPS, seed=seed, step="k-means", rate=rate)
            )
        wave = _crops(waves, spec["batch_size"], seed=seed, step=str(step), rate=rate)
        return {"wave": wave, "quantise": step >= half}

    losses = mini_training.fit(
        trainer,
        batch_of,
        steps=spec["steps"],
        learning_rate=spec["learning_rate"],
        what="mini.codec",
    )
    extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=rate)
    mini_training.save(
        codec,
        extractor,
        output,
        name="codec",
        summary="An EnCodec of the synthesiser's clips: 4 codebooks of 256 codes at 25 Hz",
        spec=spec,
        losses=losses,
        started=started,
        seed=seed,
        quality=_measure(trainer.eval(), world=world, seed=seed),
    )


def _measure(trainer: "Trainer", *, world: dict, seed: int) -> dict[str, float]:
    """Compare held-out clips with their reconstructions."""
    fresh = seeding.item_seed(seed, "mini_codec", "evaluation")
    _, waves = synthesise(_HELD_OUT_CLIPS, world=world, seed=fresh, held_out=True)
    played = reconstruct(trainer.codec, waves)
    rms = [wave.square().mean().sqrt().item() for wave in (played, waves)]
    return {
        "heldout_mel_distance": trainer.distance(played, waves).item(),
        "heldout_level_db": 20 * math.log10(rms[0] / rms[1]),
    }


def build_config(sampling_rate_hz: int) -> EncodecConfig:
    """Return the configuration; its one bandwidth gives `CODEBOOKS` codebooks."""
    hop = 640
    return EncodecConfig(
        sampling_rate=sampling_rate_hz,
        upsampling_ratios=[16, 10, 4],
        num_filters=8,
        hidden_size=64,
        codebook_dim=64,
        codebook_size=CODES,
        num_lstm_layers=1,
        use_causal_conv=False,
        norm_type="weight_norm",
        normalize=False,
        chunk_length_s=None,
        target_bandwidths=[CODEBOOKS * np.log2(CODES) * -(-sampling_rate_hz // hop) / 1000],
    )


def synthesise(
    count: int, *, world: dict, seed: int, held_out: bool = False
) -> tuple[list[dict], torch.Tensor]:
    """Draw tag sets and play them: (tags by category, waves [count, T] float32 in [-1, 1]).

    All sets are held out (`grammar.is_held_out`), or, to train on, none is.
    """
    names = [str(k) for k in range(count)]
    tags = [
        grammar.sample_part(seeding.item_rng(seed, "mini_tags", name), held_out=held_out)
        for name in names
    ]
    waves = [
        synth.render(
            played,
            seed=seeding.item_seed(seed, "mini_clips", name),
            duration_s=world["clip_s"],
            sampling_rate_hz=world["sampling_rate_hz"],
        )
        for name, played in runlog.progress(
            zip(names, tags, strict=True), what="synthesised clips", total=count
        )
    ]
    return tags, torch.from_numpy(np.stack(waves))


@torch.inference_mode()
def reconstruct(codec: EncodecModel, waves: torch.Tensor) -> torch.Tensor:
    """Play waves [N, T] through the codec's tokens: the same shape."""
    batches = runlog.progress(waves[:, None].split(4), what="reconstructed")
    played = torch.cat([codec(batch).audio_values for batch in batches])
    return played[:, 0, : waves.shape[1]]


@torch.no_grad()
def scale_layers(codec: EncodecModel, wave: torch.Tensor) -> None:
    """Make every convolution's output have unit variance on `wave` [B, 1, T] (LSUV).

    With the default initialisation a wave's traces shrink a thousandfold on their way through the
    encoder, the biases drown them, and the model learns nothing. The last output starts at 0.1.

    **Source:** Mishkin and Matas 2016, "All you need is a good init".
    """
    convolutions = [m for m in codec.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d)]
    target = {convolution: 1.0 for convolution in convolutions}
    target[codec.decoder.layers[-1].conv] = 0.1

    def rescale(module, _, output):
        factor = target[module] / output.std()
        module.parametrizations.weight.original0.mul_(factor)  # the weight norm's magnitude
        return output * factor

    for convolution in convolutions:
        convolution.bias.zero_()
    hooks = [convolution.register_forward_hook(rescale) for convolution in convolutions]
    codec.decoder(codec.encoder(wave))
    for hook in hooks:
        hook.remove()


def _crops(waves: torch.Tensor, count: int, *, seed: int, step: str, rate: int) -> torch.Tensor:
    """Cut [count, 1, T] one-second pieces at random places."""
    rng = seeding.item_rng(seed, "mini_codec", step)
    length = round(_CROP_S * rate)
    rows = rng.integers(len(waves), size=count)
    starts = rng.integers(waves.shape[1] - length + 1, size=count)
    return torch.stack([waves[r, None, s : s + length] for r, s in zip(rows, starts, strict=True)])


class Trainer(nn.Module):
    """A codec with its loss: log-mel distances at five window lengths, and commitment."""

    def __init__(self, codec: EncodecModel):
        """Prepare the mel filters for the codec's sampling rate."""
        super().__init__()
        self.codec = codec
        self.filters = [
            torch.from_numpy(
                100 * librosa.filters.mel(sr=codec.config.sampling_rate, n_fft=window, n_mels=bands)
            )
            for window, bands in _WINDOWS
        ]

    def forward(self, wave: torch.Tensor, quantise: bool) -> SimpleNamespace:
        """Return the loss on waves [B, 1, T]; with `quantise`, through the codebooks."""
        latent = self.codec.encoder(wave)  # (B, D, frames)
        loss = 3e-4 * latent.pow(2).mean()
        if quantise:
            nearest = self._quantise(latent.detach())
            loss = loss + 0.1 * (latent - nearest).pow(2).mean() / latent.detach().var()
            latent = latent + (nearest - latent).detach()  # gradients pass as if not quantised
        played = self.codec.decoder(latent)
        return SimpleNamespace(loss=loss + self.distance(played[:, 0], wave[:, 0]))

    def distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Return the mean over windows of |log A - log B| + 0.1 |A - B|, A and B mel magnitudes."""
        total = 0.0
        for (window, _), filters in zip(_WINDOWS, self.filters, strict=True):
            shape = torch.hann_window(window)
            mels = [
                filters
                @ torch.stft(x, window, window // 4, window=shape, return_complex=True).abs()
                for x in (a, b)
            ]
            logs = [torch.log(mel + 0.01) for mel in mels]
            total = total + (logs[0] - logs[1]).abs().mean()
            total = total + 0.1 * (mels[0] - mels[1]).abs().mean()
        return total / len(_WINDOWS)

    @torch.no_grad()
    def set_codebooks(self, wave: torch.Tensor) -> None:
        """Set the codebooks, one after another, to k-means of the residuals of waves [B, 1, T]."""
        residual = self.codec.encoder(wave).transpose(1, 2).flatten(0, 1)  # (N, D)
        for layer in self.codec.quantizer.layers:
            book = layer.codebook
            book.embed.copy_(residual[torch.randperm(len(residual))[:CODES]])
            for _ in range(10):
                chosen = nn.functional.one_hot(book.quantize(residual), CODES).float()  # (N, CODES)
                counts = chosen.sum(0)
                means = chosen.T @ residual / counts.clamp(min=1)[:, None]
                book.embed.copy_(torch.where(counts[:, None] > 0, means, book.embed))
            book.cluster_size.copy_(counts / counts.sum() * 200)
            book.embed_avg.copy_(book.embed * book.cluster_size[:, None])
            residual = residual - book.decode(book.quantize(residual))

    @torch.no_grad()
    def _quantise(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the sums of nearest codes [B, D, frames]; move each code to what chose it.

        Some sums leave the last codes out, so that the first codebooks say as much as they can.
        """
        batch, _, frames = latent.shape
        flat = latent.transpose(1, 2).flatten(0, 1)  # (N, D)
        residual, summed = flat, torch.zeros_like(flat)
        kept = torch.where(
            torch.rand(batch, 1) < _SHORTENED_SHARE,
            torch.randint(1, CODEBOOKS, (batch, 1)),
            CODEBOOKS,
        ).repeat_interleave(frames, 0)  # codebooks in a clip's sums, (N, 1)
        for k, layer in enumerate(self.codec.quantizer.layers):
            book = layer.codebook
            indices = book.quantize(residual)
            nearest = book.decode(indices)
            chosen = nn.functional.one_hot(indices, CODES).float()
            book.cluster_size.lerp_(chosen.sum(0), 1 - _DECAY)
            book.embed_avg.lerp_(chosen.T @ residual, 1 - _DECAY)
            book.embed.copy_(book.embed_avg / book.cluster_size.clamp(min=1e-5)[:, None])
            dead = book.cluster_size < _DEAD
            if dead.any():
                drawn = residual[torch.randint(len(residual), (int(dead.sum()),))]
                book.embed[dead] = drawn
                book.embed_avg[dead] = drawn
                book.cluster_size[dead] = 1.0
            summed += nearest * (k < kept)
            residual = residual - nearest
        return summed.view(batch, frames, -1).transpose(1, 2)
