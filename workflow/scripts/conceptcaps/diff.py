"""Two runs' figures side by side: `python -m conceptcaps.diff RUN_A RUN_B [--all] [--json]`."""

import argparse
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

import yaml

from conceptcaps.errors import InputError
from conceptcaps.evidence import figures, read_evidence
from conceptcaps.results import MetricResult, wilson

FILES = ("*/metrics.json", "scores/*.json", "tcav/scores.parquet")  # of a run, its figures
UNCOMPARED = ("seed", "packages", "versions", "sd")  # of a recipe: they may differ
SIZED = ("mauve", "distinct", "self_bleu", "fad", "retrieval")  # begin figures that N moves
WORLD = ("sources", "distill")  # settings that decide what the tags are
ROUNDING = 1e-6  # of a figure: such differences are those of floating point


def diff(a: Path, b: Path) -> dict:
    """Compare the figures and settings of two runs.

    Two figures are the same if stage, group (arm) and name are. Their difference is b - a; its 95 %
    interval is that of independent estimates with normal errors, sqrt(h_a^2 + h_b^2) to either side
    of it, h being half the length of a figure's own interval. The verdict is 'better', 'worse'
    (or 'higher', 'lower' for a figure without direction), 'not told apart' where the interval holds
    0, 'no interval', or 'not comparable' where the recipes differ in more than seeds and versions,
    or in N for a figure that N alone moves. Runs of other sources or another taxonomy describe
    other tags: none of their figures is called better or worse.

    Differs: runs on the same held-out items are not independent; their difference is then told more
    surely than said here.

    Returns:
        {"settings": [{key, a, b}], "figures": [{stage, group, name, a, b, difference, ci_low,
        ci_high, verdict, recipe}], "only_in_a": [...], "only_in_b": [...]}, recipe being the keys
        in which the recipes differ.

    Raises:
        InputError: a directory is not a run.
    """
    left, right, settings = _figures(a), _figures(b), _settings(a, b)
    alike = not any(setting["key"].split(".")[0] in WORLD for setting in settings)
    return {
        "settings": settings,
        "figures": [_compared(key, left[key], right[key], alike) for key in left if key in right],
        "only_in_a": [" ".join(key) for key in left if key not in right],
        "only_in_b": [" ".join(key) for key in right if key not in left],
    }


def _figures(run: Path) -> dict[tuple[str, str, str], dict]:
    """Return {(stage, group, name): metric} of a run."""
    found = sorted({path for pattern in FILES for path in run.glob(pattern)})
    if not found:
        raise InputError(
            f"{run}: there are no figures of a run ({', '.join(FILES)}). Name its directory, such "
            "as results/mini."
        )
    evidence = read_evidence(found)
    return {
        (stage, group.removeprefix("arms "), metric["name"]): metric
        for stage, content in evidence.items()
        for group, metrics in [*figures(content), *_tcav(content)]
        for metric in metrics
    }


def _tcav(content: dict) -> list[tuple[str, list[dict]]]:
    """Return the share of significant cells of a TCAV table, and of its controls, as figures."""
    if "significant" not in content or "pairs" not in content:
        return []
    groups = {"concepts": {"pairs": content["pairs"], "significant": len(content["significant"])}}
    groups |= content["controls"]
    return [
        (name, [_share("significant_share", group["significant"], group["pairs"])])
        for name, group in groups.items()
        if group["pairs"]
    ]


def _share(name: str, found: int, n: int) -> dict:
    return asdict(MetricResult(name, *wilson(found, n), n, "none"))


def _compared(key: tuple[str, str, str], a: dict, b: dict, alike: bool) -> dict:
    other = _differing(a.get("recipe") or {}, b.get("recipe") or {})
    if key[2].startswith(SIZED) and a.get("n") != b.get("n"):
        other.append("n")
    row = {"stage": key[0], "group": key[1], "name": key[2], "a": a["value"], "b": b["value"]}
    row |= {"difference": None, "ci_low": None, "ci_high": None, "recipe": other}
    if a["value"] is None or b["value"] is None:
        return row | {"verdict": "not defined"}
    row["difference"] = difference = b["value"] - a["value"]
    halves = [_half(metric) for metric in (a, b)]
    if None not in halves:
        half = math.hypot(*halves)
        row |= {"ci_low": difference - half, "ci_high": difference + half}
    return row | {"verdict": _verdict(row, a.get("direction") if alike else None)}


def _half(metric: dict) -> float | None:
    low, high = metric.get("ci_low"), metric.get("ci_high")
    return None if low is None or high is None else (high - low) / 2


def _verdict(row: dict, direction: str | None) -> str:
    if row["recipe"]:
        return "not comparable"
    if abs(row["difference"]) <= ROUNDING * max(abs(row["a"]), abs(row["b"])):
        return "equal"
    if row["ci_low"] is None:
        return "no interval"
    if row["ci_low"] <= 0 <= row["ci_high"]:
        return "not told apart"
    rises = row["difference"] > 0
    if direction not in ("higher", "lower"):
        return "higher" if rises else "lower"
    return "better" if rises == (direction == "higher") else "worse"


def _differing(a, b, path: str = "", apart=UNCOMPARED) -> list[str]:
    """Return the dotted keys, but those `apart`, in which two nested dicts differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [
            found
            for key in sorted(a.keys() | b.keys())
            if key not in apart
            for found in _differing(a.get(key), b.get(key), f"{path}.{key}".lstrip("."), apart)
        ]
    return [] if a == b else [path]


def _settings(a: Path, b: Path) -> list[dict]:
    """Return the settings in which two runs differ, as far as both recorded theirs."""
    files = [run / "run/config.yaml" for run in (a, b)]
    if not all(file.is_file() for file in files):
        return []
    left, right = (yaml.safe_load(file.read_text()) for file in files)
    return [
        {"key": key, "a": _at(left, key), "b": _at(right, key)}
        for key in _differing(left, right, apart=())
    ]


def _at(settings: dict, key: str):
    for part in key.split("."):
        settings = settings.get(part) if isinstance(settings, dict) else None
    return settings


def page(found: dict, a: Path, b: Path, *, everything: bool) -> str:
    """Return a comparison as text; figures that are equal are left out unless `everything`."""
    lines = [f"a: {a}", f"b: {b}", ""]
    lines += [f"setting {s['key']}: {s['a']} -> {s['b']}" for s in found["settings"]]
    equal = [row for row in found["figures"] if row["verdict"] == "equal" and not row["recipe"]]
    shown = [row for row in found["figures"] if everything or row not in equal]
    if shown:
        name_width = max(len(f"{r['stage']} {r['group']} {r['name']}") for r in shown)
        head = f"{'figure':<{name_width}} {'a':>10} {'b':>10} {'b - a':>10} {'95 % interval':>24}"
        lines += ["", f"{head}  verdict"]
        for row in shown:
            name = f"{row['stage']} {row['group']} {row['name']}"
            interval = ""
            if row["ci_low"] is not None:
                interval = f"[{row['ci_low']:.4g}, {row['ci_high']:.4g}]"
            why = f" ({', '.join(row['recipe'])})" if row["recipe"] else ""
            values = " ".join(f"{_number(row[key]):>10}" for key in ("a", "b", "difference"))
            lines.append(f"{name:<{name_width}} {values} {interval:>24}  {row['verdict']}{why}")
    if equal and not everything:
        lines.append(f"{len(equal)} figures are equal (--all shows them)")
    for where in ("only_in_a", "only_in_b"):
        if found[where]:
            lines.append(f"{where.replace('_', ' ')}: {', '.join(found[where])}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def main(arguments: list[str]) -> None:
    """Print the comparison of two runs."""
    parser = argparse.ArgumentParser(prog="python -m conceptcaps.diff", description=__doc__)
    parser.add_argument("run_a", type=Path, help="a run's directory, such as results/mini")
    parser.add_argument("run_b", type=Path, help="another one")
    parser.add_argument("--all", action="store_true", help="show figures that are equal as well")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args(arguments)
    try:
        found = diff(options.run_a, options.run_b)
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(page(found, options.run_a, options.run_b, everything=options.all))


if __name__ == "__main__":
    main(sys.argv[1:])
