"""The miniature world's judge: a small network that hears which tags a clip plays."""

import time
from pathlib import Path
from types import SimpleNamespace

import librosa
import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import EncodecModel, PretrainedConfig, PreTrainedModel

from conceptcaps import clap, grammar, mini_codec, mini_training, runlog, seeding

TAGS = tuple(grammar.CATEGORY_OF)  # the order of every array of tags
PLAYED = tuple(tag for tag in grammar.TAXONOMY["instrument"] if tag not in grammar.NONE_OF)
ALTERNATIVES = ("genre", "tempo")  # categories of which a clip has one tag
_FFT, _HOP, _BANDS = 1024, 320, 64  # samples at 16 kHz: a spectrum every 20 ms
_CHANNELS = (24, 48, 64, 64)
_LEVELS_DB = 12.0  # a training clip is up to this much louder or softer than it was played
_CODEC_SHARE = 0.5  # of the training clips: heard through the codec
_HELD_OUT_CLIPS = 300


class JudgeConfig(PretrainedConfig):
    """Which clips a judge hears."""

    model_type = "conceptcaps_judge"

    def __init__(self, sampling_rate_hz: int = 16000, clip_s: float = 4.0, **others):
        """Describe clips of one length in seconds, at one rate."""
        self.sampling_rate_hz = sampling_rate_hz
        self.clip_s = clip_s
        super().__init__(**others)


class Judge(PreTrainedModel):
    """Waves [B, T] to one logit per tag [B, tags], in the order of `TAGS`.

    Genres and tempi are alternatives, a softmax over their logits; the others are independent. The
    level does not count. A clip starts on a beat, so the network may read positions.
    """

    config_class = JudgeConfig
    main_input_name = "waves"

    def __init__(self, config: JudgeConfig):
        """Build the network with random weights."""
        super().__init__(config)
        filters = librosa.filters.mel(
            sr=config.sampling_rate_hz, n_fft=_FFT, n_mels=_BANDS, norm=None
        )
        self.register_buffer("filters", torch.from_numpy(filters))
        self.register_buffer("taper", torch.hann_window(_FFT))
        bands, frames = _BANDS, 1 + round(config.clip_s * config.sampling_rate_hz) // _HOP
        blocks = []
        for n_in, n_out in zip((1, *_CHANNELS), _CHANNELS, strict=False):
            blocks += [
                nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
            bands, frames = -(-bands // 2), -(-frames // 2)
        self.norm = nn.BatchNorm1d(_BANDS)
        self.body = nn.Sequential(*blocks, nn.Flatten(1, 2))  # (B, channels * bands, frames)
        self.squeeze = nn.Conv1d(_CHANNELS[-1] * bands, 48, 1)
        self.bottleneck = nn.Linear(48 * frames, 128)
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, len(TAGS)))
        self.post_init()

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        """Return logits [B, tags]."""
        return self.head(self.embed(waves))

    def embed(self, waves: torch.Tensor) -> torch.Tensor:
        """Return what the logits are read from, [B, 128]."""
        spectrum = torch.stft(waves, _FFT, _HOP, window=self.taper, return_complex=True).abs()
        log_mel = torch.log(self.filters @ spectrum.square() + 1e-5)  # (B, bands, frames)
        log_mel = self.norm(log_mel - log_mel.mean(dim=(1, 2), keepdim=True))
        return self.bottleneck(self.squeeze(self.body(log_mel[:, None])).flatten(1))


class Trainer(nn.Module):
    """A judge with its loss."""

    def __init__(self, judge: Judge):
        """Wrap a judge."""
        super().__init__()
        self.judge = judge

    def forward(self, waves: torch.Tensor, tagged: torch.Tensor) -> SimpleNamespace:
        """Return the loss on waves [B, T] with multi-hot tags [B, tags].

        Cross-entropy of each alternative where the clip has such a tag, and the mean binary one of
        the other tags.
        """
        logits = self.judge(waves).float()
        loss, others = 0.0, torch.ones(len(TAGS), dtype=torch.bool)
        for category in ALTERNATIVES:
            columns = _columns(category)
            others[columns] = False
            told = tagged[:, columns].any(1)
            if told.any():
                right = tagged[told][:, columns].argmax(1)
                loss = loss + functional.cross_entropy(logits[told][:, columns], right)
        independent = functional.binary_cross_entropy_with_logits(
            logits[:, others], tagged[:, others]
        )
        return SimpleNamespace(loss=loss + 3 * independent)


def train(*, codec: str | Path, spec: dict, world: dict, seed: int, output: str | Path) -> None:
    """Train a judge on synthesised clips, half of them heard through the codec.

    It never hears what a model generated. Held-out tag sets are not trained on.

    Args:
        codec: model directory of the codec.
        spec: steps, batch_size, learning_rate, clips (config: mini.judge).
        world: clip_s in seconds, sampling_rate_hz (config: mini).
        seed: global seed.
        output: model directory to write.
    """
    started = time.monotonic()
    seeding.seed_everything(seed)
    audio_encoder = EncodecModel.from_pretrained(codec, dtype=torch.float32).eval()
    tags, waves = mini_codec.synthesise(spec["clips"], world=world, seed=seed)
    through = round(_CODEC_SHARE * len(waves))
    waves[:through] = mini_codec.reconstruct(audio_encoder, waves[:through])
    tagged = multi_hot(tags)
    judge = Judge(JudgeConfig(**world))

    def batch_of(step: int) -> dict:
        rng = seeding.item_rng(seed, "mini_judge", str(step))
        rows = rng.integers(len(waves), size=spec["batch_size"])
        gains = 10 ** (rng.uniform(-_LEVELS_DB, _LEVELS_DB, (len(rows), 1)) / 20)
        return {"waves": waves[rows] * torch.from_numpy(gains).float(), "tagged": tagged[rows]}

    losses = mini_training.fit(
        Trainer(judge),
        batch_of,
        steps=spec["steps"],
        learning_rate=spec["learning_rate"],
        what="mini.judge",
        bfloat16=True,
    )
    mini_training.save(
        judge,
        None,
        output,
        name="judge",
        summary="A convolutional network that hears which tags a clip of the synthesiser plays",
        spec=spec,
        losses=losses,
        started=started,
        seed=seed,
        quality=_measure(judge.eval(), audio_encoder, world=world, seed=seed),
    )


def _measure(judge: Judge, codec: EncodecModel, *, world: dict, seed: int) -> dict[str, float]:
    fresh = seeding.item_seed(seed, "mini_judge", "evaluation")
    tags, waves = mini_codec.synthesise(_HELD_OUT_CLIPS, world=world, seed=fresh, held_out=True)
    tagged = multi_hot(tags).numpy() > 0
    heard = {"played": waves, "codec": mini_codec.reconstruct(codec, waves)}
    return {
        f"{what}_{name}": value
        for what, clips in heard.items()
        for name, value in figures(read(judge, clips)[0], tagged).items()
    }


def load(directory: str | Path) -> Judge:
    """Return a trained judge, in float32."""
    return Judge.from_pretrained(directory, dtype=torch.float32).eval()


@torch.inference_mode()
def read(judge: Judge, waves: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return logits [N, tags] and embeddings [N, 128] of waves of the judge's length and rate."""
    batches = runlog.progress(waves.split(32), what="judged")
    embedded = torch.cat([judge.embed(batch) for batch in batches])
    return judge.head(embedded).numpy(), embedded.numpy()


def multi_hot(tags: list[dict[str, list[str]]]) -> torch.Tensor:
    """Return [N, tags] of 0 and 1, float32, in the order of `TAGS`."""
    named = [{tag for group in row.values() for tag in group} for row in tags]
    return torch.tensor([[float(tag in row) for tag in TAGS] for row in named])


def figures(logits: np.ndarray, tagged: np.ndarray) -> dict[str, float]:
    """Return how well clips follow their tags.

    Args:
        logits: what the judge heard, [N, tags].
        tagged: what the clips should play, bool [N, tags].

    Returns:
        genre_accuracy and tempo_accuracy, of the clips that have such a tag; instrument_auc, the
        mean over `PLAYED` of the chance that a clip with the instrument is rated above one without;
        fast_slow_auc, the same of fast against slow clips by the difference of their logits. Of
        clips that all agree in a tag, the figure is nan.
    """
    found = {}
    for category in ALTERNATIVES:
        hits = correct(logits, tagged, category)
        found[f"{category}_accuracy"] = float(np.mean(hits)) if len(hits) else float("nan")
    players = [TAGS.index(tag) for tag in PLAYED]
    found["instrument_auc"] = float(np.nanmean([_auc(tagged[:, k], logits[:, k]) for k in players]))
    slow, fast = TAGS.index("slow tempo"), TAGS.index("fast tempo")
    told = tagged[:, slow] | tagged[:, fast]
    found["fast_slow_auc"] = _auc(tagged[told, fast], (logits[:, fast] - logits[:, slow])[told])
    return found


def correct(logits: np.ndarray, tagged: np.ndarray, category: str) -> np.ndarray:
    """Return, for each clip that has a tag of an alternative, whether it was heard: bool [M]."""
    columns = _columns(category)
    tagged = tagged[:, columns]
    told = tagged.any(1)
    return logits[told][:, columns].argmax(1) == tagged[told].argmax(1)


def _columns(category: str) -> list[int]:
    return [TAGS.index(tag) for tag in grammar.TAXONOMY[category]]


def _auc(positive: np.ndarray, scores: np.ndarray) -> float:
    return (
        clap.auc(scores[positive], scores[~positive])
        if positive.any() and not positive.all()
        else np.nan
    )
