"""Text metrics that need a language model: BERTScore and MAUVE."""

import csv
from functools import cached_property
from pathlib import Path

import bert_score
import numpy as np
import torch
from bert_score.utils import bert_cos_score_idf
from mauve.compute_mauve import compute_mauve
from transformers import AutoConfig, AutoModel, AutoTokenizer

from conceptcaps import results
from conceptcaps.errors import InputError
from conceptcaps.results import MetricResult

RELIABLE_MAUVE = 1000  # texts a side, below which MAUVE's own authors do not trust it
BATCH = 16  # texts a model reads together; changes speed only


class Models:
    """The two models that read texts; each is loaded when it is first needed."""

    def __init__(self, *, bertscore: dict, mauve: dict):
        """Remember which (config: scores.text.bertscore and .mauve); load nothing yet."""
        self.of_bertscore = bertscore
        self.of_mauve = mauve
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def bertscore(self):
        """Return (encoder cut after its layer, tokenizer)."""
        entry = self.of_bertscore
        config, tokenizer = _read_config("bertscore", entry)
        if not 1 <= entry["layer"] <= config.num_hidden_layers:
            raise InputError(
                f"scores.text.bertscore.layer: {entry['layer']}, but {entry['model']} has layers "
                f"1 to {config.num_hidden_layers}."
            )
        # Roberta counts positions from behind the padding id
        longest = config.max_position_embeddings - (config.pad_token_id or 0) - 1
        tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
        return self._load(entry, num_hidden_layers=entry["layer"]), tokenizer

    @cached_property
    def mauve(self):
        """Return (language model without its head, tokenizer)."""
        _, tokenizer = _read_config("mauve", self.of_mauve)
        tokenizer.pad_token = tokenizer.eos_token  # never read: masked
        tokenizer.padding_side = "right"
        return self._load(self.of_mauve), tokenizer

    def _load(self, entry: dict, **changes):
        model = AutoModel.from_pretrained(
            entry["model"],
            revision=entry["revision"],
            dtype=torch.float32,
            use_safetensors=True,
            **changes,
        )
        return model.to(self.device).eval()


def _read_config(key: str, entry: dict):
    try:
        config = AutoConfig.from_pretrained(entry["model"], revision=entry["revision"])
        tokenizer = AutoTokenizer.from_pretrained(entry["model"], revision=entry["revision"])
    except (OSError, ValueError) as error:
        raise InputError(
            f"scores.text.{key}.model: {entry['model']} (revision {entry['revision']}) cannot be "
            f"loaded: {str(error).splitlines()[0]} Without network, give a local directory with "
            "the model's files and 'revision: null'."
        ) from error
    return config, tokenizer


def bertscore_f1(predictions, references, *, models: Models) -> tuple[np.ndarray, dict]:
    """Return each text's BERTScore F1 (not rescaled) and the recipe; an empty text scores 0.

    P and R are means over tokens of the greatest cosine between hidden vectors; F1 = 2PR / (P + R).

    **Source:** Zhang et al. 2020, their bert-score package with no idf weights.
    **Differs:** the model is loaded here, with its revision, which the package cannot; empty texts
    make the package fail.
    """
    model, tokenizer = models.bertscore
    entry = models.of_bertscore
    no_idf = {tokenizer.sep_token_id: 0.0, tokenizer.cls_token_id: 0.0}
    weights = {token: no_idf.get(token, 1.0) for token in range(len(tokenizer))}
    filled = [
        i
        for i, pair in enumerate(zip(predictions, references, strict=True))
        if all(map(str.strip, pair))
    ]
    values = np.zeros(len(predictions))
    if filled:
        values[filled] = bert_cos_score_idf(
            model,
            [references[i] for i in filled],
            [predictions[i] for i in filled],
            tokenizer,
            weights,
            batch_size=BATCH,
            device=models.device,
        )[:, 2].numpy()
    recipe = {**entry, "idf": False, "versions": results.versions("bert-score", "transformers")}
    baseline = _baseline(entry)
    if baseline is not None:
        recipe["rescaled"] = float((values.mean() - baseline) / (1 - baseline))
    return values, recipe


def _baseline(entry: dict) -> float | None:
    """Return the F1 of unrelated sentences that bert-score publishes for a model and layer."""
    folder = Path(bert_score.__file__).parent / "rescale_baseline/en"
    table = folder / f"{entry['model']}.tsv"
    if not table.is_file():
        return None
    with table.open() as file:
        return next(
            float(r["F"]) for r in csv.DictReader(file) if int(r["LAYER"]) == entry["layer"]
        )


def mauve(predictions, references, *, models: Models, seed: int) -> MetricResult:
    """MAUVE in (0, 1]: area under the divergence curve of the two sets of texts, quantised.

    The value is the mean over k-means seeds; it looks at sets, not at pairs.

    **Source:** Pillutla et al. 2021 (mauve-text).
    **Differs:** an empty text is read as the end-of-text token, where mauve-text drops it.

    Raises:
        InputError: there are fewer texts than buckets.
    """
    entry = models.of_mauve
    n = len(predictions)
    buckets = entry["buckets"] or max(2, round(n / 10))
    if 2 * n < buckets:
        raise InputError(f"scores.text.mauve.buckets: {buckets} buckets for {2 * n} texts.")
    human, machine = (_features(texts, models) for texts in (references, predictions))
    runs = [
        compute_mauve(
            p_features=human, q_features=machine, num_buckets=buckets, seed=seed + k
        ).mauve
        for k in range(entry["seeds"])
    ]
    recipe = {
        **entry,
        "buckets": buckets,
        "seed": seed,
        "sd": float(np.std(runs, ddof=1)) if len(runs) > 1 else None,
        "reliability": "ok" if n >= RELIABLE_MAUVE else "unreliable",
        "versions": results.versions("mauve-text", "faiss-cpu", "transformers"),
    }
    return MetricResult("mauve", float(np.mean(runs)), None, None, n, "higher", recipe)


@torch.inference_mode()
def _features(texts: list[str], models: Models) -> np.ndarray:
    """Return the last token's hidden vector of each text, [N, D]."""
    model, tokenizer = models.mauve
    vectors = []
    for start in range(0, len(texts), BATCH):
        batch = tokenizer(
            [text or tokenizer.eos_token for text in texts[start : start + BATCH]],
            padding=True,
            truncation=True,
            max_length=models.of_mauve["max_tokens"],
            return_tensors="pt",
        ).to(models.device)
        hidden = model(**batch).last_hidden_state  # (B, T, D)
        last = batch["attention_mask"].sum(1) - 1
        vectors.append(hidden[torch.arange(len(last)), last].cpu().numpy())
    return np.concatenate(vectors)
