"""Text metrics that need a language model: BERTScore and MAUVE."""

import csv
from functools import cached_property
from pathlib import Path

import bert_score
import faiss
import numpy as np
import torch
import yaml
from bert_score.utils import bert_cos_score_idf
from scipy.special import rel_entr
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModel, AutoTokenizer

from conceptcaps import results
from conceptcaps.errors import InputError

RELIABLE_MAUVE = 1000  # texts a side, below which MAUVE's own authors do not trust it
EXPLAINED = 0.9  # share of variance that MAUVE's clusters see
SCALING = 5  # MAUVE's constant c
BATCH = 16  # texts a model reads together; changes speed only


CONFIG = Path(__file__).parents[3] / "config.yaml"


class Models:
    """The two models that read texts; each is loaded when it is first needed."""

    @classmethod
    def of_config(cls) -> "Models":
        """Return the models that the repository's config.yaml names."""
        text = yaml.safe_load(CONFIG.read_text())["scores"]["text"]
        return cls(bertscore=text["bertscore"], mauve=text["mauve"])

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
        _prefix_space(tokenizer)
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


def _prefix_space(tokenizer) -> None:
    """Let byte-level BPE read a text's first word as it reads the others: with a blank before it.

    The bert-score package asks for it at every call, and its published figures and baselines are
    of such texts; transformers 5 no longer listens there. Other tokenizers stay as they are.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and isinstance(backend.pre_tokenizer, ByteLevel):
        use_regex = backend.pre_tokenizer.use_regex
        backend.pre_tokenizer = ByteLevel(add_prefix_space=True, use_regex=use_regex)


def bertscore(predictions, references, *, models: Models) -> tuple[np.ndarray, dict]:
    """Return each text's BERTScore, [N, 3]: precision, recall and F1, not rescaled; and the recipe.

    P and R are means over tokens of the greatest cosine between hidden vectors; F1 = 2PR / (P + R).
    An empty text scores 0. The recipe has the baseline that rescaling subtracts, where known.

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
    values = np.zeros((len(predictions), 3))
    if filled:
        values[filled] = bert_cos_score_idf(
            model,
            [references[i] for i in filled],
            [predictions[i] for i in filled],
            tokenizer,
            weights,
            batch_size=BATCH,
            device=models.device,
        ).numpy()
    versions = results.versions("bert-score", "transformers")
    code = f"{entry['model']}_L{entry['layer']}_no-idf_version={versions['bert-score']}"
    recipe = {**entry, "idf": False, "hash": code, "versions": versions}
    baseline = _baseline(entry)
    if baseline is not None:
        recipe["baseline"] = baseline
    return values, recipe


def _baseline(entry: dict) -> list[float] | None:
    """Return P, R, F1 of unrelated sentences that bert-score publishes for a model and layer."""
    folder = Path(bert_score.__file__).parent / "rescale_baseline/en"
    table = folder / f"{entry['model']}.tsv"
    if not table.is_file():
        return None
    with table.open() as file:
        return next(
            [float(r[name]) for name in "PRF"]
            for r in csv.DictReader(file)
            if int(r["LAYER"]) == entry["layer"]
        )


def mauve(predictions, references, *, models: Models, seed: int, weights: np.ndarray):
    """MAUVE in (0, 1]: area under the divergence curve of the two sets of texts, quantised.

    The value is the mean over k-means seeds; it looks at sets, not at pairs. Its interval resamples
    texts within the clusters of each seed, so that it holds both sources of chance. Resampling
    makes sets look more different: the interval is moved so that its mean is the value.

    Args:
        predictions: texts, [N].
        references: human texts, [N].
        models: the language model and the settings.
        seed: of the first k-means.
        weights: how often each resample draws each text, [n_boot, N] (`results.bootstrap_weights`).

    Returns:
        (value, resampled values [n_boot], recipe)

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
    runs, drawn = [], []
    for k in range(entry["seeds"]):
        p, q = _clusters(human, machine, buckets=buckets, seed=seed + k)
        runs.append(float(_area(p.mean(0), q.mean(0))))
        # every seed gets its own part of the resamples, so that theirs is the spread of both
        part = weights[k :: entry["seeds"]] / n
        drawn.append(_area(part @ p, part @ q))
    resampled = np.empty(len(weights))
    for k, values in enumerate(drawn):
        resampled[k :: entry["seeds"]] = values
    value = float(np.mean(runs))
    if len(resampled):
        resampled = np.clip(resampled - resampled.mean() + value, 0, 1)
    recipe = {
        **entry,
        "buckets": buckets,
        "sd": float(np.std(runs, ddof=1)) if len(runs) > 1 else None,
        "reliability": "ok" if n >= RELIABLE_MAUVE else "unreliable",
        "versions": results.versions("faiss-cpu", "scikit-learn", "transformers"),
    }
    return value, resampled, recipe


def _clusters(human: np.ndarray, machine: np.ndarray, *, buckets: int, seed: int):
    """Return which cluster each text is in, one-hot, [N, K] for either side: mauve-text's steps."""
    both = normalize(np.vstack([machine, human]))
    pca = PCA(random_state=seed + 1).fit(both)
    kept = int(np.argmax(np.cumsum(pca.explained_variance_ratio_) >= EXPLAINED)) + 1
    reduced = np.ascontiguousarray(pca.transform(both)[:, :kept], dtype=np.float32)
    kmeans = faiss.Kmeans(kept, buckets, niter=500, nredo=5, update_index=True, seed=seed + 2)
    kmeans.train(reduced)
    labels = kmeans.index.search(reduced, 1)[1][:, 0]
    onehot = np.eye(buckets)[labels]
    return onehot[len(machine) :], onehot[: len(machine)]


def _area(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return MAUVE of pairs of histograms [..., K]: the area under the divergence curve."""
    share = np.linspace(1e-6, 1 - 1e-6, 25)[:, None]  # of p in the mixture
    p, q = p[..., None, :], q[..., None, :]
    mixed = share * p + (1 - share) * q  # (..., 25, K)
    x, y = (np.exp(-SCALING * rel_entr(side, mixed).sum(-1)) for side in (q, p))
    ends = np.zeros((*x.shape[:-1], 1)), np.ones((*x.shape[:-1], 1))
    x, y = np.concatenate([ends[1], x, ends[0]], -1), np.concatenate([ends[0], y, ends[1]], -1)
    return 0.5 * (np.abs(np.trapezoid(y, x)) + np.abs(np.trapezoid(x, y)))


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
