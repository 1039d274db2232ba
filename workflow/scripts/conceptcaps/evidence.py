"""The run's figures, from metrics files and the TCAV table, to travel with the data."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from conceptcaps.io import read_json, read_rows

_WHOLE_BYTES = 1 << 20  # a JSON file above this size is reduced to its figures


def read_evidence(paths: Iterable[str | Path]) -> dict[str, dict]:
    """Read evidence files into {stage: content}, without NaN (they become null).

    JSON files come whole, or above 1 MiB as {group: [metric, ...]}. A TCAV table becomes {"pairs",
    "significant": [its significant rows], "controls": {name: {"pairs", "significant"}}}.

    Raises:
        InputError: a file is missing or unreadable.
    """
    return {_stage(Path(path)): _content(Path(path)) for path in paths}


def figures(content: dict, group: str = "") -> Iterator[tuple[str, list[dict]]]:
    """Yield (group, metrics) of every list of MetricResults in a stage's content.

    The group is where the list stands: 'metrics', 'arms base', 'controls silence', ...
    """
    for key, value in content.items():
        name = f"{group} {key}".lstrip()
        if isinstance(value, dict):
            yield from figures(value, name)
        elif isinstance(value, list) and value and _is_metric(value[0]):
            yield name, value


def _is_metric(value) -> bool:
    return isinstance(value, dict) and {"name", "value", "n"} <= value.keys()


def _stage(path: Path) -> str:
    """Return the stage of a file: 'vae' for vae/metrics.json, 'clap' for scores/clap.json."""
    return path.parent.name if path.stem in ("metrics", "scores") else path.stem


def _content(path: Path) -> dict:
    if path.suffix == ".parquet":
        content = _tcav(read_rows(path))
    else:
        content = read_json(path)
        if path.stat().st_size > _WHOLE_BYTES:
            content = dict(figures(content))
    return json.loads(json.dumps(content), parse_constant=lambda _: None)


def _tcav(rows: list[dict]) -> dict:
    concepts = [row for row in rows if row["control"] == ""]
    controls = {
        name: [row for row in rows if row["control"] == name]
        for name in sorted({row["control"] for row in rows} - {""})
    }
    return {
        "pairs": len(concepts),
        "significant": [
            {key: value for key, value in row.items() if not isinstance(value, list)}
            for row in concepts
            if row["significant"]
        ],
        "controls": {
            name: {"pairs": len(group), "significant": sum(row["significant"] for row in group)}
            for name, group in controls.items()
        },
    }
