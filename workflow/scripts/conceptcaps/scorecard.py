"""The scorecard: the paper's claims beside what a run measured, by its protocol and by ours."""

from collections.abc import Iterable
from html import escape
from pathlib import Path

import yaml

from conceptcaps.categories import TAGS_OF
from conceptcaps.errors import InputError
from conceptcaps.evidence import figures, read_evidence
from conceptcaps.io import atomic, read_json, read_rows, read_table, write_json

_KEYS = {"where", "claim", "paper", "protocol", "right", "differs", "needs"}
_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 76em; color: #222; padding: 0 1em }
table { border-collapse: collapse }
td, th { padding: .45em .7em; text-align: left; vertical-align: top }
tr { border-bottom: 1px solid #ddd } td.n { white-space: nowrap } .none { color: #777 }
"""


def write(
    *,
    claims: str | Path,
    evidence: Iterable[str | Path],
    tcav: str | Path,
    dataset: str | Path,
    pairs: str | Path,
    config: str | Path,
    provenance: str | Path,
    output: str | Path,
    page: str | Path,
) -> None:
    """Write {"run_id", "claims": [...]} as JSON, and the same as a page.

    A claim keeps what the list says of it, and gets for `protocol` and `right` either {"value",
    "ci_low", "ci_high", "n", "what"} or {"status": "not run", "why"}; `unlike` lists the settings
    in which the run differs from what a comparison with the paper needs.

    Args:
        claims: YAML list, see resources/scorecard.yaml.
        evidence: metrics files of the stages (see `conceptcaps.evidence`).
        tcav: table `schemas.TCAV`.
        dataset: table `schemas.DATASET`.
        pairs: table `schemas.PAIRS`.
        config: the run's merged config.
        provenance: provenance.json of the run.
        output: JSON file to write.
        page: HTML file to write.

    Raises:
        InputError: a claim lacks a key, has one too many, or names a kind of figure there is not.
    """
    settings = yaml.safe_load(Path(config).read_text())
    run = {
        "stages": read_evidence(evidence),
        "tcav": [row for row in read_rows(tcav) if not row["control"]],
        "counts": _counts(dataset, pairs),
    }
    listed = yaml.safe_load(Path(claims).read_text())
    filled = [_fill(claims, number, claim, run, settings) for number, claim in enumerate(listed)]
    card = {"run_id": read_json(provenance)["run_id"], "claims": filled}
    write_json(output, card)
    with atomic(page) as temporary:
        temporary.write_text(_page(card))
    missing = sum("status" in claim["right"] for claim in filled)
    apart = sum(bool(claim["unlike"]) for claim in filled)
    print(f"{len(filled)} claims; right figure not run: {missing}; not comparable: {apart}")


def _counts(dataset: str | Path, pairs: str | Path) -> dict[str, tuple[float, int]]:
    """Return {what: (value, N)} of the dataset."""
    rows = read_rows(dataset, ["caption", "duration_s", *TAGS_OF.values()])
    tags = {tag for row in rows for column in TAGS_OF.values() for tag in row[column]}
    n = len(rows)
    return {
        "clips": (n, n),
        "tags": (len(tags), n),
        "words": (sum(len(row["caption"].split()) for row in rows) / n, n),
        "hours": (sum(row["duration_s"] for row in rows) / 3600, n),
        "pairs": (n_pairs := len(read_table(pairs, ["id"])), n_pairs),
    }


def _fill(path, number: int, claim: dict, run: dict, settings: dict) -> dict:
    if set(claim) != _KEYS:
        wrong = ", ".join(sorted(_KEYS ^ set(claim)))
        raise InputError(f"{path}: claim {number} lacks or has too much: {wrong}.")
    ours = {key: _at(settings, key) for key in claim["needs"]}
    unlike = {key: value for key, value in ours.items() if value != claim["needs"][key]}
    place = f"{path}: claim {number}"
    found = {side: _look_up(place, claim[side], run) for side in ("protocol", "right")}
    kept = {key: claim[key] for key in ("where", "claim", "paper", "differs", "needs")}
    return kept | found | {"unlike": unlike}


def _at(settings: dict, path: str):
    for key in path.split("."):
        settings = settings[key]
    return settings


def _look_up(place: str, asked: dict, run: dict) -> dict:
    """Return what the run measured of a figure that a claim asks for."""
    if "none" in asked:
        return _not_run(asked["none"])
    if "count" in asked:
        value, n = run["counts"][asked["count"]]
        return {"value": value, "ci_low": None, "ci_high": None, "n": n, "what": asked["count"]}
    if "tcav" in asked:
        return _cell(asked, run["tcav"])
    if "stage" not in asked:
        raise InputError(f"{place}: a figure needs one of stage, tcav, count, none.")
    ours = _metric(asked, asked.get("arm"), run["stages"])
    if ours is None:
        return _not_run(f"this run has no {_label(asked, asked.get('arm'))}")
    shaky = ours.get("recipe", {}).get("reliability") == "unreliable"
    note = ", unreliable at this N" if shaky else ""
    if "minus" not in asked:
        return {key: ours[key] for key in ("value", "ci_low", "ci_high", "n")} | {
            "what": _label(asked, asked.get("arm")) + note
        }
    other = _metric(asked, asked["minus"], run["stages"])
    if other is None:
        return _not_run(f"this run has no {_label(asked, asked['minus'])}")
    what = f"{asked['name']}, {asked['arm']} less {asked['minus']}{note}"
    return _difference(ours, other) | {"what": what}


def _not_run(why: str) -> dict:
    return {"status": "not run", "why": why}


def _label(asked: dict, arm: str | None) -> str:
    return f"{asked['name']} ({asked['stage']}{', ' + arm if arm else ''})"


def _metric(asked: dict, arm: str | None, stages: dict) -> dict | None:
    for group, metrics in figures(stages.get(asked["stage"], {})):
        if arm is None or group == f"arms {arm}":
            for metric in metrics:
                if metric["name"] == asked["name"] and metric["value"] is not None:
                    return metric
    return None


def _difference(ours: dict, other: dict) -> dict:
    """Subtract two figures; the interval holds for any dependence between them: it is wide."""
    bounded = None not in (ours["ci_low"], ours["ci_high"], other["ci_low"], other["ci_high"])
    return {
        "value": ours["value"] - other["value"],
        "ci_low": ours["ci_low"] - other["ci_high"] if bounded else None,
        "ci_high": ours["ci_high"] - other["ci_low"] if bounded else None,
        "n": min(ours["n"], other["n"]),
    }


def _cell(asked: dict, rows: list[dict]) -> dict:
    wanted = asked["concept"], asked["genre"]
    cells = [row for row in rows if (row["concept"], row["genre"]) == wanted]
    if not cells or cells[-1][asked["tcav"]] is None:
        return _not_run(f"this run did not test {asked['concept']} in {asked['genre']}")
    row = cells[-1]
    value = row[asked["tcav"]]
    known = asked["tcav"] == "tcav"
    return {
        "value": value,
        "ci_low": row["null_mean"] + row["effect_low"] if known else None,
        "ci_high": row["null_mean"] + row["effect_high"] if known else None,
        "n": row["n_class"],
        "what": f"{asked['tcav']} at {row['layer']}"
        + (f", {'' if row['significant'] else 'not '}significant" if known else ""),
    }


def _page(card: dict) -> str:
    head = "".join(
        f"<th>{name}</th>"
        for name in ("where", "claim", "paper", "by its protocol", "by ours", "the difference")
    )
    rows = "".join(_page_row(claim) for claim in card["claims"])
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Scorecard</title>"
        f"<style>{_STYLE}</style><h1>The paper's claims, and this run</h1>"
        f"<p>Run {escape(card['run_id'])}. Paper: arXiv 2601.14157. Square brackets: 95 % "
        f"intervals. An asterisk: the run used other models or sources than the paper, so the "
        f"figure shows that the measurement works and cannot be held against the paper's.</p>"
        f"<table><tr>{head}</tr>{rows}</table></html>\n"
    )


def _page_row(claim: dict) -> str:
    paper = "no number" if claim["paper"] is None else _number(claim["paper"])
    cells = [escape(claim["where"]), escape(claim["claim"]), paper]
    cells += [_page_figure(claim[side], bool(claim["unlike"])) for side in ("protocol", "right")]
    cells.append(escape(claim["differs"]))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _page_figure(found: dict, unlike: bool) -> str:
    if "status" in found:
        return f"<span class=none>{found['status']}: {escape(found['why'])}</span>"
    interval = ""
    if found["ci_low"] is not None:
        interval = f" [{found['ci_low']:.4g}, {found['ci_high']:.4g}]"
    star = "*" if unlike else ""
    what = f"{escape(found['what'])}, N = {found['n']:,}"
    return f"<b>{_number(found['value'])}{star}</b>{interval}<br>{what}"


def _number(value: float) -> str:
    """Return a count whole, any other figure with four digits."""
    return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"
