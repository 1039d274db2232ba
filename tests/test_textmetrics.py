import numpy as np
import pytest
import sacrebleu
import tiny_models
import torch
from transformers import AutoModel, AutoTokenizer, RobertaTokenizer

from conceptcaps import grammar, io, schemas, textmetrics, textmodels, wording
from conceptcaps.errors import InputError

RNG = np.random.default_rng(7)
TAGS = [[t for group in grammar.sample_tags(RNG).values() for t in group] for _ in range(40)]
CAPTIONS = [wording.write_caption(tags, RNG, style="concise") for tags in TAGS]
OTHERS = [wording.write_caption(tags, RNG, style="verbose") for tags in TAGS]
DISJOINT = ["zzz qqq xxx vvv www"] * 40


@pytest.fixture(scope="module")
def models():
    return textmodels.Models(
        bertscore={"model": tiny_models.roberta(), "revision": None, "layer": 2},
        mauve={
            "model": tiny_models.gpt2(),
            "revision": None,
            "max_tokens": 96,
            "buckets": 8,
            "seeds": 3,
        },
    )


def measure(predictions, models, metrics=textmetrics.METRICS, references=CAPTIONS, tags=TAGS):
    found = textmetrics.score_texts(
        predictions=predictions,
        references=references,
        tags=tags,
        metrics=metrics,
        models=models,
        n_boot=50,
        seed=1,
    )
    assert [metric.name for metric in found] == list(metrics)
    return {metric.name: metric for metric in found}


def test_identical_texts_reach_the_top(models):
    found = measure(CAPTIONS, models)
    for order in (1, 2, 3, 4):
        assert found[f"bleu{order}"].value == pytest.approx(100)
        assert found[f"bleu{order}"].ci_low == pytest.approx(100)
    assert found["rougeL"].value == 1
    assert found["bertscore_f1"].value == pytest.approx(1, abs=1e-5)
    assert found["mauve"].value > 0.999


def test_disjoint_texts_reach_the_bottom(models):
    found = measure(DISJOINT, models)
    for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rougeL", "tag_recall"):
        assert found[name].value == found[name].ci_high == 0
    assert found["bertscore_f1"].value < 0.95
    assert found["words"].value == 5


def test_empty_texts_score_nothing_and_stop_nothing(models):
    found = measure(["", *CAPTIONS[1:]], models)
    assert found["rougeL"].value == pytest.approx(39 / 40)
    assert found["bertscore_f1"].value == pytest.approx(39 / 40, abs=1e-5)
    everything = measure([""] * 40, models)
    assert {everything[n].value for n in ("bleu4", "rougeL", "bertscore_f1", "words")} == {0}
    assert np.isfinite(everything["mauve"].value)
    no_reference = measure(CAPTIONS, models, ("bertscore_f1", "bleu4"), references=[""] * 40)
    assert no_reference["bertscore_f1"].value == no_reference["bleu4"].value == 0


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_bleu_is_sacrebleus(order):
    ours = textmetrics.bleu(OTHERS, CAPTIONS, order=order, n_boot=200, seed=1)
    theirs = sacrebleu.BLEU(max_ngram_order=order).corpus_score(OTHERS, [CAPTIONS]).score
    assert ours.value == pytest.approx(theirs)
    assert ours.ci_low < ours.value < ours.ci_high
    assert "tok:13a" in ours.recipe["signature"]


def test_bleu_of_known_counts():
    # Unigram precision 4/4, two words too short: brevity exp(1 - 6/4).
    ours = textmetrics.bleu(["a b c d"], ["a b c d e f"], order=1, n_boot=10, seed=1)
    assert ours.value == pytest.approx(100 * np.exp(1 - 6 / 4))


def test_rouge_of_known_subsequence(models):
    found = measure(["a b x c"], models, ("rougeL",), references=["a b c d"], tags=[["a"]])
    assert found["rougeL"].value == pytest.approx(3 / 4)  # common subsequence a b c: P = R = 3/4


def test_bertscore_sees_the_pairing(models):
    paired = measure(CAPTIONS, models, ("bertscore_f1",))["bertscore_f1"]
    moved = measure(CAPTIONS[1:] + CAPTIONS[:1], models, ("bertscore_f1",))["bertscore_f1"]
    assert moved.ci_high < paired.ci_low


def test_bertscore_is_the_mean_of_greatest_cosines(models):
    tokenizer = AutoTokenizer.from_pretrained(tiny_models.roberta())
    encoder = AutoModel.from_pretrained(tiny_models.roberta(), dtype=torch.float32).eval()
    with torch.no_grad():
        a, b = (
            torch.nn.functional.normalize(
                encoder(**tokenizer(text, return_tensors="pt")).last_hidden_state[0], dim=-1
            )
            for text in (OTHERS[0], CAPTIONS[0])
        )
    # All tokens may be matched; the ends have no weight in the means.
    precision = (a @ b.T).max(1).values[1:-1].mean()
    recall = (a @ b.T).max(0).values[1:-1].mean()
    expected = float(2 * precision * recall / (precision + recall))
    values, _ = textmodels.bertscore_f1(OTHERS[:1], CAPTIONS[:1], models=models)
    assert values[0] == pytest.approx(expected, abs=1e-5)


def test_bertscore_takes_robertas_own_tokenizer(tmp_path, models):
    encoder = AutoModel.from_pretrained(tiny_models.roberta())
    encoder.save_pretrained(tmp_path)
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "\u0120", *"abcdefgh"]
    own = RobertaTokenizer(vocab={t: i for i, t in enumerate(vocabulary)}, merges=[])
    own.save_pretrained(tmp_path)
    entry = {"model": str(tmp_path), "revision": None, "layer": 1}
    others = textmodels.Models(bertscore=entry, mauve={})
    values, _ = textmodels.bertscore_f1(["a b c", "a b"], ["a b c", "h g"], models=others)
    assert values[0] == pytest.approx(1, abs=1e-5)
    assert values[1] < values[0]


def test_mauve_tells_sets_apart_and_says_when_it_cannot_be_trusted(models):
    same = measure(CAPTIONS[::-1], models, ("mauve",))["mauve"]
    other = measure(DISJOINT, models, ("mauve",))["mauve"]
    assert same.value > 0.999
    assert other.value < 0.1
    assert same.recipe["reliability"] == "unreliable"
    assert same.recipe["sd"] == pytest.approx(0, abs=1e-6)
    assert same.ci_low is None


def test_tag_recall_in_closed_form(models):
    texts = ["Slow Jazz with PIANO.", "nothing here", "bass"]
    tags = [["jazz", "piano", "drums", "flute"], ["rock"], ["bass"]]
    assert textmetrics.tag_recall(texts, tags).tolist() == [0.5, 0.0, 1.0]
    found = measure(texts, models, ("tag_recall",), references=texts, tags=tags)["tag_recall"]
    assert found.value == pytest.approx(0.5)
    assert found.n == 3


def test_wrong_calls_are_refused(models):
    with pytest.raises(InputError, match="not in"):
        measure(CAPTIONS, models, ("bleu7",))
    with pytest.raises(InputError, match="must be equal"):
        measure(CAPTIONS[:3], models, ("bleu1",))
    entry = {"model": tiny_models.roberta(), "revision": None, "layer": 9}
    with pytest.raises(InputError, match="layers 1 to 2"):
        _ = textmodels.Models(bertscore=entry, mauve={}).bertscore
    entry = {"model": "nobody/no-such-model", "revision": "main", "layer": 9}
    with pytest.raises(InputError, match=r"scores\.text\.bertscore\.model"):
        _ = textmodels.Models(bertscore=entry, mauve={}).bertscore


def write_arm(path, ids, texts):
    row = {"prompt": "", "n_tokens": 1, "seed": 0, "model": ""}
    rows = [{**row, "id": i, "caption": text} for i, text in zip(ids, texts, strict=True)]
    io.write_table(path, rows, schemas.CAPTIONS)
    return path


def test_scores_stand_between_floors_and_ceilings(tmp_path, models):
    ids = [f"pair{k:03d}" for k in range(40)]
    none = {column: [] for column in schemas.TAGS_OF.values()}
    rows = [
        {"id": i, "ytid": i, "caption": c, "aspect_list": t, **none, "split": "test"}
        for i, c, t in zip(ids, CAPTIONS, TAGS, strict=True)
    ]
    io.write_table(tmp_path / "pairs.parquet", rows, schemas.PAIRS)
    arms = {
        "conceptcaps": write_arm(tmp_path / "a.parquet", ids, CAPTIONS),
        "base": write_arm(tmp_path / "b.parquet", ids[::-1], OTHERS[::-1]),
    }
    spec = textmetrics.Spec(bootstraps=50, bertscore=models.of_bertscore, mauve=models.of_mauve)
    output = tmp_path / "text.json"
    textmetrics.score(
        pairs=tmp_path / "pairs.parquet", captions=arms, spec=spec, seed=1, output=output
    )
    scores = {
        arm: {m["name"]: m["value"] for m in rows}
        for arm, rows in io.read_json(output)["arms"].items()
    }
    assert set(scores) == {"conceptcaps", "base", "shuffled", "pasted_tags", "human"}
    assert set(scores["human"]) == {"tag_recall", "words"}
    assert set(scores["base"]) == set(textmetrics.METRICS)
    bleu = {arm: values.get("bleu4") for arm, values in scores.items()}
    assert bleu["conceptcaps"] == pytest.approx(100)
    assert bleu["pasted_tags"] < bleu["shuffled"] < 60
    assert bleu["base"] == pytest.approx(sacrebleu.corpus_bleu(OTHERS, [CAPTIONS]).score)
    recall = {arm: values["tag_recall"] for arm, values in scores.items()}
    assert recall["pasted_tags"] == 1
    assert recall["shuffled"] < 0.5 < recall["base"] < recall["human"] == recall["conceptcaps"]

    write_arm(tmp_path / "b.parquet", ids[1:], OTHERS[1:])
    with pytest.raises(InputError, match="pair000"):
        textmetrics.score(
            pairs=tmp_path / "pairs.parquet", captions=arms, spec=spec, seed=1, output=output
        )


def test_no_shuffled_caption_keeps_its_place():
    texts = [str(k) for k in range(25)]
    moved = textmetrics._deranged(texts, 3)
    assert sorted(moved) == sorted(texts)
    assert all(a != b for a, b in zip(texts, moved, strict=True))
