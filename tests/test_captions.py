import pytest
import tiny_models

from conceptcaps import captions, chatmodel, decoding, gate, io, schemas, seeding
from conceptcaps.categories import TAGS_OF
from conceptcaps.errors import InputError
from conceptcaps.mentions import Mentions

SPEC = decoding.Spec(
    engine="transformers",
    batch_size=4,
    max_new_tokens=40,
    temperature=0.7,
    top_p=0.9,
    min_yield=0.0,
)
LENIENT = gate.Spec(
    drafts=1,
    min_words=5,
    max_words=None,
    min_tag_recall=None,
    max_unasked_tags=None,
    min_english=None,
    max_copied_words=None,
    artist_patterns=False,
    artists=None,
)
FIND = Mentions(sorted({tag for tags in tiny_models.TAGS for tag in tags}))


def changed(**changes):
    return decoding.Spec(**{**vars(SPEC), **changes})


def gated(**changes):
    return gate.Gate(gate.Spec(**{**vars(LENIENT), **changes}), mentions=FIND)


@pytest.fixture(scope="module")
def tags(tmp_path_factory):
    path = tmp_path_factory.mktemp("tags") / "tags.parquet"
    rows = [
        {
            "id": f"item{k:03d}",
            "aspect_list": tiny_models.TAGS[k % 5],
            **{column: [] for column in TAGS_OF.values()},
            "given": [],
            "seed": k,
        }
        for k in range(16)
    ]
    io.write_table(path, rows, schemas.TAGS)
    return path


def make(
    directory,
    tags,
    *,
    shard=0,
    shard_items=8,
    items=16,
    arm="base",
    spec=SPEC,
    judge=None,
    seed=1,
    **of_base,
):
    directory.mkdir(exist_ok=True)
    output = directory / f"{arm}{shard}.parquet"
    captions.generate_shard(
        tags=tags,
        shard=shard,
        shard_items=shard_items,
        items=items,
        arm=arm,
        adapter=None,
        base=tiny_models.base(**of_base),
        spec=spec,
        gate=judge or gated(),
        seed=seed,
        output=output,
        ledger=directory / f"{arm}{shard}.ledger.parquet",
        drafts=directory / f"{arm}{shard}.drafts.parquet",
    )
    return output


@pytest.fixture(scope="module")
def whole(tags, tmp_path_factory):
    return make(tmp_path_factory.mktemp("whole"), tags)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_neither_batch_nor_shard_moves_a_byte(tags, tmp_path, quantization):
    judge = gated(drafts=2, min_tag_recall=0.5)
    known = dict(tags=tags, judge=judge, items=8, quantization=quantization)
    drafts = {}
    for batch, shard in ((1, 8), (8, 8), (3, 4)):
        spec = changed(batch_size=batch)
        for k in range(8 // shard):
            made = make(
                tmp_path / f"{batch}_{shard}", shard=k, shard_items=shard, spec=spec, **known
            )
            rows = io.read_rows(made.with_suffix(".drafts.parquet"))
            drafts.setdefault((batch, shard), []).extend(rows)
    first, *others = (sorted(d, key=lambda r: (r["id"], r["attempt"])) for d in drafts.values())
    assert len(first) > 8
    assert all(other == first for other in others)
    one, many = (tmp_path / f"{batch}_8" for batch in (1, 8))
    for name in ("base0.parquet", "base0.ledger.parquet", "base0.drafts.parquet"):
        assert (one / name).read_bytes() == (many / name).read_bytes()


def test_captions_are_of_the_items_in_order(tags, whole):
    rows = io.read_rows(whole)
    ledger = io.read_rows(whole.with_suffix(".ledger.parquet"))
    assert [row["id"] for row in ledger] == [f"item{k:03d}" for k in range(8)]
    assert [row["id"] for row in rows] == [r["id"] for r in ledger if r["status"] == "ok"]
    assert rows
    assert rows[0]["prompt"].endswith(", ".join(tiny_models.TAGS[int(rows[0]["id"][4:]) % 5]))
    assert len({row["caption"] for row in rows}) == len(rows)
    assert all(0 < row["n_tokens"] <= SPEC.max_new_tokens for row in rows)


def test_growing_the_dataset_changes_no_caption(tags, tmp_path):
    short = make(tmp_path / "short", tags, shard=1, items=12)
    grown = make(tmp_path / "grown", tags, shard=1, items=16)
    first = {row["id"]: row for row in io.read_rows(short)}
    assert len(io.read_rows(short.with_suffix(".ledger.parquet"))) == 4
    assert first.items() <= {row["id"]: row for row in io.read_rows(grown)}.items()


def test_a_resumed_shard_gives_the_same_bytes(tags, whole, tmp_path, monkeypatch):
    real = decoding.Transformers.answer

    made = []

    def killed_at_the_second_batch(engine, chats, seeds):
        made.append(len(chats))
        if len(made) == 2:
            raise KeyboardInterrupt
        return real(engine, chats, seeds)

    def counted(engine, chats, seeds):
        made.append(len(chats))
        return real(engine, chats, seeds)

    monkeypatch.setattr(decoding.Transformers, "answer", killed_at_the_second_batch)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, tags)
    assert (tmp_path / "base0.parquet.partial/00000.parquet").is_file()
    made.clear()
    monkeypatch.setattr(decoding.Transformers, "answer", counted)
    output = make(tmp_path, tags)
    assert made == [4]
    assert output.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "base0.parquet.partial").exists()


class Refusing(gate.Gate):
    """A gate that refuses the items of some of the five tag sets, whatever is written of them."""

    def __init__(self, *sets):
        super().__init__(gate.Spec(**{**vars(LENIENT), "drafts": 2}), mentions=FIND)
        self.refused = [tiny_models.TAGS[k] for k in sets]

    def judge(self, caption, tags):
        return gate.Verdict("missing_tags" if tags in self.refused else "ok", "", 1.0)


def test_a_shard_whose_gate_changed_draws_the_right_items_again(tags, tmp_path, monkeypatch):
    """Its taxonomy or list of artists was edited between a kill and the resume."""
    real = decoding.Transformers.answer
    calls = []

    def killed_in_the_second_round(engine, chats, seeds):
        calls.append(len(chats))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(engine, chats, seeds)

    with monkeypatch.context() as patch:
        patch.setattr(decoding.Transformers, "answer", killed_in_the_second_round)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "resumed", tags, judge=Refusing(0, 1, 2))
    assert calls == [4, 4, 4, 2]
    resumed, whole = (
        make(tmp_path / name, tags, judge=Refusing(2, 3, 4)) for name in ("resumed", "whole")
    )
    for suffix in (".parquet", ".ledger.parquet", ".drafts.parquet"):
        assert resumed.with_suffix(suffix).read_bytes() == whole.with_suffix(suffix).read_bytes()


def leave_sidecar(directory, tags):
    """Leave what a job with SPEC, seed 1 and four items would leave, but for its texts."""
    requests = io.read_rows(tags, ["id", "aspect_list"])[:4]
    base = tiny_models.base()
    key = captions._key(requests, "base", None, base, SPEC, LENIENT, 1)
    row = {"prompt": "", "n_tokens": 5, "model": "", "caption": "left by an earlier job"}
    sidecar = io.Sidecar(
        directory / "base0.parquet", key=key, code=captions.__file__, schema=schemas.CAPTIONS
    )
    seeds = [seeding.item_seed(1, "caption/base", item["id"]) for item in requests]
    sidecar.write(
        0, [{**row, "id": i["id"], "seed": k} for i, k in zip(requests, seeds, strict=True)]
    )


def test_a_fitting_sidecar_is_used(tags, tmp_path):
    leave_sidecar(tmp_path, tags)
    output = make(tmp_path, tags, items=4)
    assert {row["caption"] for row in io.read_rows(output)} == {"left by an earlier job"}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"spec": changed(temperature=1.0)},
        {"dtype": "bfloat16"},
        {"judge": gated(drafts=2)},
    ],
)
def test_a_stale_sidecar_is_discarded(tags, tmp_path, change):
    leave_sidecar(tmp_path, tags)
    output = make(tmp_path, tags, items=4, **change)
    assert "left by an earlier job" not in {row["caption"] for row in io.read_rows(output)}


def test_refused_drafts_are_kept_with_their_reason(tags, tmp_path):
    judge = gated(drafts=3, min_words=1000)
    output = make(tmp_path, tags, items=4, judge=judge)
    assert io.read_rows(output) == []
    ledger = io.read_rows(output.with_suffix(".ledger.parquet"))
    assert [row["status"] for row in ledger] == ["too_short"] * 4
    assert "none of 3 drafts passed" in ledger[0]["reason"]
    drafts = io.read_rows(output.with_suffix(".drafts.parquet"))
    assert [row["attempt"] for row in drafts] == [0] * 4 + [1] * 4 + [2] * 4
    assert all("min_words is 1000" in row["reason"] for row in drafts)
    of_one = [row for row in drafts if row["id"] == "item000"]
    assert len({row["seed"] for row in of_one}) == len({row["caption"] for row in of_one}) == 3
    with pytest.raises(InputError, match="min_yield"):
        make(tmp_path, tags, items=4, judge=judge, spec=changed(min_yield=0.5))


def test_the_first_draft_that_passes_is_the_caption(tags, tmp_path):
    output = make(tmp_path, tags, judge=gated(drafts=6, min_tag_recall=0.5))
    drafts = io.read_rows(output.with_suffix(".drafts.parquet"))
    kept = {row["id"]: row["caption"] for row in io.read_rows(output)}
    assert kept
    for row in drafts:
        assert (row["status"] == "ok") == (row["tag_recall"] >= 0.5 and len(row["caption"]) > 0)
        if row["status"] == "ok":
            assert kept.pop(row["id"]) == row["caption"]
    assert not kept
    ledger = io.read_rows(output.with_suffix(".ledger.parquet"))
    assert [row["id"] for row in ledger] == [f"item{k:03d}" for k in range(8)]


def test_a_context_without_room_is_refused(tags, tmp_path):
    with pytest.raises(InputError, match=r"max_new_tokens.*exceed the context"):
        make(tmp_path, tags, items=4, spec=changed(max_new_tokens=5000))


def test_zero_shot_is_not_told_the_tags(tags, tmp_path):
    output = make(tmp_path, tags, items=4, arm="zero_shot", judge=gated(min_words=0))
    (prompt,) = {row["prompt"] for row in io.read_rows(output)}
    assert prompt == chatmodel.read_prompts(tiny_models.PROMPTS)["untagged"]


def test_heldout_captions_are_of_test_pairs_only(tmp_path):
    pairs = tiny_models.write_pairs(tmp_path / "pairs.parquet")
    test = [row["id"] for row in io.read_rows(pairs) if row["split"] == "test"]
    for items, expected in ((3, test[:3]), (100, test)):
        output = tmp_path / f"heldout{items}.parquet"
        captions.generate_heldout(
            pairs=pairs,
            items=items,
            arm="base",
            adapter=None,
            base=tiny_models.base(),
            spec=SPEC,
            seed=1,
            output=output,
        )
        assert [row["id"] for row in io.read_rows(output)] == expected


def test_rows_that_are_not_there_are_an_error(tags, tmp_path):
    with pytest.raises(InputError, match="has no rows 16 to 23"):
        make(tmp_path, tags, shard=2, items=24)


@pytest.mark.parametrize(
    ("text", "finished", "caption"),
    [
        ("  A slow song. It is calm.  ", True, "A slow song. It is calm."),
        ("A slow song. It is ca", False, "A slow song."),
        ("A slow song at 120.5 beats", False, ""),
        ("A slow song without an end", True, "A slow song without an end"),
        ("A slow song.\n\nTags: slow", False, "A slow song."),
        ("Here is a caption:\n\nA slow song.", True, "A slow song."),
        ('"A slow song."', True, "A slow song."),
        ("Here it is:\n\nA slow song! And th", False, "A slow song!"),
        (" \n ", True, ""),
        ("", False, ""),
    ],
)
def test_cleaning(text, finished, caption):
    assert captions.clean(text, finished=finished) == caption
