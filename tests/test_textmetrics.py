import numpy as np
import pytest
import sacrebleu
import tiny_models
import torch
from mauve.compute_mauve import compute_mauve
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModel, AutoTokenizer, RobertaTokenizer

from conceptcaps import grammar, io, schemas, textmetrics, textmodels, wording, wordmetrics
from conceptcaps.categories import TAGS_OF
from conceptcaps.errors import InputError

RNG = np.random.default_rng(7)
TAGS = [[t for group in grammar.sample_tags(RNG).values() for t in group] for _ in range(40)]
CAPTIONS = [wording.write_caption(tags, RNG, style="concise") for tags in TAGS]
OTHERS = [wording.write_caption(tags, RNG, style="verbose") for tags in TAGS]
TAXONOMY = "resources/mini/taxonomy.yaml"
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


OFFLINE = tuple(name for name in textmetrics.METRICS if name != "meteor")


def measure(predictions, models, metrics=OFFLINE, references=CAPTIONS, tags=TAGS):
    found = textmetrics.score_texts(
        predictions=predictions,
        references=references,
        tags=tags,
        training=CAPTIONS[:20],
        metrics=metrics,
        models=models,
        n_boot=50,
        seed=1,
    )
    assert [metric.name for metric in found] == textmetrics._expand(metrics)
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
    for name in ("bleu1", "bleu2", "bleu3", "bleu4", "rougeL", "tag_recall", "tag_precision"):
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


@pytest.mark.parametrize("prediction", ["A slow song.", "", " \n\u00a0", "."])
@pytest.mark.parametrize("reference", ["A slow song.", "", " \n\u00a0", "."])
def test_no_empty_text_stops_a_metric(prediction, reference):
    """One pair or some, either side empty or blank, tags or none: every figure is a number."""
    metrics = ("bleu", "rouge", "tags", "diversity", "length", "novelty")
    for n, tags in ((1, []), (3, ["slow"])):
        found = textmetrics.score_texts(
            predictions=[prediction] * n,
            references=[reference] * n,
            tags=[tags] * n,
            training=[],
            metrics=metrics,
            n_boot=5,
        )
        assert np.isfinite([metric.value for metric in found]).all()


def test_empty_texts_do_not_stop_the_metrics_with_models(models):
    for predictions, references in (
        (["", "A song."], ["", ""]),
        (["", ""], ["A song.", ""]),
        ([" ", "\n"], ["\t", "\u00a0"]),
    ):
        found = measure(
            predictions * 4, models, ("bertscore", "mauve"), references * 4, tags=[[]] * 8
        )
        assert all(np.isfinite(metric.value) for metric in found.values())


def test_names_are_those_that_the_field_knows():
    names = textmetrics._expand(["bleu", "rouge", "bertscore"])
    assert names[:5] == ["bleu1", "bleu2", "bleu3", "bleu4", "rougeL"]
    assert names[-1] == "bertscore_f1"


PIECES = [
    "piano",
    "slow",
    "a",
    "a",
    "!",
    "…",
    "naïve",
    "Jazz",
    "日本",
    "'s",
    "-",
    "0.5",
    "  ",
    "\n",
    "",
]


def nonsense(rng, n):
    """Return n texts of random pieces, some empty, some of blanks only."""
    return [
        "".join(rng.choice([" ", "", " "]) + w for w in rng.choice(PIECES, rng.integers(0, 14)))
        for _ in range(n)
    ]


@pytest.mark.parametrize("seed", range(40))
def test_bleu_and_rouge_are_the_fields_own_on_any_text(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    texts, references = nonsense(rng, n), nonsense(rng, n)
    found = textmetrics.score_texts(
        predictions=texts, references=references, metrics=["bleu", "rouge", "length"], n_boot=5
    )
    assert [m.name for m in found] == ["bleu1", "bleu2", "bleu3", "bleu4", "rougeL", "words"]
    for order, metric in enumerate(found[:4], start=1):
        theirs = sacrebleu.BLEU(max_ngram_order=order).corpus_score(texts, [references]).score
        assert abs(metric.value - theirs) <= 1e-9
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    theirs = [scorer.score(r, t)["rougeL"].fmeasure for r, t in zip(references, texts, strict=True)]
    assert found[4].value == pytest.approx(np.mean(theirs), abs=1e-12)
    assert found[5].value == sum(len(text.split()) for text in texts) / n


@pytest.mark.parametrize("seed", range(10))
def test_self_bleu_is_corpus_bleu_against_all_the_others(seed):
    rng = np.random.default_rng(seed)
    texts = nonsense(rng, 6)
    others = [[t for k, t in enumerate(texts) if k != i] for i in range(6)]
    theirs = sacrebleu.BLEU().corpus_score(
        texts, [list(column) for column in zip(*others, strict=True)]
    )
    assert wordmetrics.self_bleu(texts) == pytest.approx(theirs.score, abs=1e-9)


def test_bleu_brackets_its_value_and_names_its_tokeniser(models):
    for metric in measure(OTHERS, models, textmetrics.GROUPS["bleu"]).values():
        assert metric.ci_low < metric.value < metric.ci_high
        assert "tok:13a" in metric.recipe["signature"]


def test_bleu_of_known_counts(models):
    # Unigram precision 4/4, two words too short: brevity exp(1 - 6/4).
    ours = measure(["a b c d"], models, ("bleu1",), references=["a b c d e f"], tags=[[]])["bleu1"]
    assert ours.value == pytest.approx(100 * np.exp(1 - 6 / 4))


def test_diversity_and_novelty_in_closed_form():
    texts = ["a b a b", "A b c"]
    assert wordmetrics.distinct(texts, order=1) == 3 / 7
    assert wordmetrics.distinct(texts, order=2) == 3 / 5
    assert wordmetrics.distinct([""], order=2) == 0
    found = wordmetrics.novelty(texts, ["a  B C", "b"])
    assert found == {"novel_captions": 0.5, "novel_vocabulary": 0.0}
    assert wordmetrics.self_bleu(["alone"]) == 0


def test_meteor_of_known_texts():
    if not wordmetrics.has_wordnet():
        with pytest.raises(InputError, match="NLTK_DATA"):
            wordmetrics.meteor(["a"], ["a"])
        pytest.skip("NLTK finds no WordNet")
    same, none, synonym = wordmetrics.meteor(
        ["a slow song", "zzz", "a fast auto"], ["a slow song", "a slow song", "a fast car"]
    )
    assert none == 0 < synonym == same == pytest.approx(1 - 0.5 / 27)  # one chunk of three


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
                encoder(**tokenizer(f" {text}", return_tensors="pt")).last_hidden_state[0], dim=-1
            )
            for text in (OTHERS[0], CAPTIONS[0])
        )
    # All tokens may be matched; the ends have no weight in the means.
    precision = (a @ b.T).max(1).values[1:-1].mean()
    recall = (a @ b.T).max(0).values[1:-1].mean()
    expected = float(2 * precision * recall / (precision + recall))
    values, recipe = textmodels.bertscore(OTHERS[:1], CAPTIONS[:1], models=models)
    assert values[0].tolist() == pytest.approx(
        [float(precision), float(recall), expected], abs=1e-5
    )
    assert recipe["hash"].endswith("_L2_no-idf_version=0.3.13")


def test_bertscore_takes_robertas_own_tokenizer(tmp_path, models):
    encoder = AutoModel.from_pretrained(tiny_models.roberta())
    encoder.save_pretrained(tmp_path)
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "\u0120", *"abcdefgh"]
    own = RobertaTokenizer(vocab={t: i for i, t in enumerate(vocabulary)}, merges=[])
    own.save_pretrained(tmp_path)
    entry = {"model": str(tmp_path), "revision": None, "layer": 1}
    others = textmodels.Models(bertscore=entry, mauve={})
    values, _ = textmodels.bertscore(["a b c", "a b"], ["a b c", "h g"], models=others)
    assert values[0].tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert values[1, 2] < values[0, 2]


def test_mauve_tells_sets_apart_and_says_when_it_cannot_be_trusted(models):
    same = measure(CAPTIONS[::-1], models, ("mauve",))["mauve"]
    other = measure(DISJOINT, models, ("mauve",))["mauve"]
    assert same.value > 0.999
    assert other.value < 0.1
    assert same.recipe["reliability"] == "unreliable"
    assert same.recipe["sd"] == pytest.approx(0, abs=1e-6)
    middle = measure(CAPTIONS[:20] + DISJOINT[:20], models, ("mauve",))["mauve"]
    assert other.ci_high < middle.ci_low < middle.value < middle.ci_high < same.value


@pytest.mark.parametrize("seed", [3, 4])
def test_mauve_is_the_authors_own(seed):
    rng = np.random.default_rng(seed)
    human, machine = rng.normal(size=(60, 8)), rng.normal(0.4, 1, size=(60, 8))
    ours = textmodels._area(
        *(o.mean(0) for o in textmodels._clusters(human, machine, buckets=6, seed=seed))
    )
    theirs = compute_mauve(p_features=human, q_features=machine, num_buckets=6, seed=seed).mauve
    assert 0.05 < ours < 0.99
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_tag_recall_in_closed_form(models):
    texts = ["Slow Jazz with PIANO, drumsticks and no flute.", "nothing here", "bass and rock"]
    tags = [["jazz", "piano", "drums", "flute"], ["rock"], ["bass"]]
    found = measure(texts, models, ("tags",), references=texts, tags=tags)
    assert found["tag_recall"].value == pytest.approx((2 / 4 + 0 + 1) / 3)
    assert found["all_tags"].value == pytest.approx(1 / 3)
    assert found["tag_precision"].value == pytest.approx(3 / 4)  # rock was not asked for
    assert found["tag_recall_substring"].value == pytest.approx((4 / 4 + 0 + 1) / 3)
    assert found["tag_recall"].n == 3


def test_arms_are_told_apart_by_a_paired_bootstrap(models):
    known = dict(
        references=CAPTIONS,
        tags=TAGS,
        mentions=None,
        training=[],
        models=models,
        n_boot=200,
        seed=1,
    )
    better = [*OTHERS[:-1], CAPTIONS[-1]]  # one text more like its reference than OTHERS
    arms = {
        name: textmetrics._measure(predictions=texts, metrics=["bleu4", "rougeL"], **known)
        for name, texts in {"a": better, "b": OTHERS, "c": DISJOINT}.items()
    }
    rows = {(r["metric"], r["arm"], r["against"]): r for r in textmetrics.compare(arms)}
    assert len(rows) == 6
    assert rows["rougeL", "a", "c"]["verdict"] == "higher"
    close = rows["rougeL", "a", "b"]
    assert close["verdict"] == "not separable"
    own = next(result for result, _ in arms["a"] if result.name == "rougeL")
    assert 0 <= close["ci_low"] <= close["difference"] <= close["ci_high"]
    assert close["ci_high"] - close["ci_low"] < own.ci_high - own.ci_low  # pairing helps


def test_wrong_calls_are_refused(models):
    with pytest.raises(InputError, match="not in"):
        measure(CAPTIONS, models, ("bleu7",))
    with pytest.raises(InputError, match="Did you mean 'rouge'"):
        measure(CAPTIONS, models, ("rogue",))
    with pytest.raises(InputError, match="needs the argument 'training'"):
        textmetrics.score_texts(predictions=["a"], references=["a"], metrics=["novelty"])
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
    none = {column: [] for column in TAGS_OF.values()}
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
        pairs=tmp_path / "pairs.parquet",
        captions=arms,
        taxonomy=TAXONOMY,
        spec=spec,
        seed=1,
        output=output,
    )
    scores = {
        arm: {m["name"]: m["value"] for m in rows}
        for arm, rows in io.read_json(output)["arms"].items()
    }
    assert set(scores) == {"conceptcaps", "base", "shuffled", "tag_concat", "template", "human"}
    assert set(scores["human"]) == set(textmetrics._expand(textmetrics.OF_ONE_TEXT))
    assert set(scores["base"]) >= set(OFFLINE)
    verdicts = {r["metric"]: r["verdict"] for r in io.read_json(output)["comparisons"]}
    assert verdicts["bleu4"] == "higher"
    bleu = {arm: values.get("bleu4") for arm, values in scores.items()}
    assert bleu["conceptcaps"] == pytest.approx(100)
    assert bleu["tag_concat"] < bleu["shuffled"] < 60
    assert bleu["base"] == pytest.approx(sacrebleu.corpus_bleu(OTHERS, [CAPTIONS]).score)
    recall = {arm: values["tag_recall"] for arm, values in scores.items()}
    assert recall["tag_concat"] == 1
    assert recall["shuffled"] < 0.5 < recall["base"] < recall["human"] == recall["conceptcaps"]

    write_arm(tmp_path / "b.parquet", ids[1:], OTHERS[1:])
    with pytest.raises(InputError, match="pair000"):
        textmetrics.score(
            pairs=tmp_path / "pairs.parquet",
            captions=arms,
            taxonomy=TAXONOMY,
            spec=spec,
            seed=1,
            output=output,
        )


def test_no_shuffled_caption_keeps_its_place():
    texts = [str(k) for k in range(25)]
    moved = textmetrics._deranged(texts, 3)
    assert sorted(moved) == sorted(texts)
    assert all(a != b for a, b in zip(texts, moved, strict=True))
