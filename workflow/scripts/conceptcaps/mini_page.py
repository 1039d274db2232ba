"""The miniature world in the report: its checks, and clips to listen to with their tags."""

import base64
from html import escape
from pathlib import Path

from conceptcaps.io import atomic, read_json, read_rows

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; }
body { max-width: 62em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; border-bottom: 1px solid #ddd; }
th, td { padding: .35em .8em .35em 0; }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.fails { color: #b00020; font-weight: 600 }
.caption { min-width: 20em }
audio { width: 11em; height: 2em }
"""
_HEARD = {
    "played": "played by the synthesiser",
    "codec": "through the codec",
    "generated": "generated from the caption",
}


def write(*, checks: str | Path, clips: str | Path, examples: int, output: str | Path) -> None:
    """Write an HTML page, complete in itself.

    Args:
        checks: list of {name, value, bound, holds}.
        clips: table `schemas.MINIATURE`.
        examples: tag sets to listen to, each as synthesised, through the codec and generated; every
            genre comes once before any comes twice.
        output: HTML file to write.
    """
    found = read_json(checks)
    rows = "".join(
        f'<tr><td>{escape(check["name"])}</td><td class="number">{check["value"]:.3f}</td>'
        f"<td>{escape(check['bound'])}</td>"
        + ("<td>holds</td></tr>" if check["holds"] else '<td class="fails">does not hold</td></tr>')
        for check in found
    )
    held = sum(check["holds"] for check in found)
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>The miniature world</title><style>{_STYLE}</style>
<h1>The miniature world</h1>
<p>{held} of {len(found)} checks hold. The clips at the end have tag sets that no
model was trained on. The models are toys that prove the pipeline; they do not make music.</p>
<h2>Checks</h2>
<table><tr><th>figure</th><th>value</th><th>bound</th><th></th></tr>{rows}</table>
<h2>Listen</h2>
<table><tr><th>tags and caption</th>{"".join(f"<th>{what}</th>" for what in _HEARD.values())}</tr>
{"".join(_example(group) for group in _examples(read_rows(clips), examples))}</table>
</html>
"""
    with atomic(output) as temporary:
        temporary.write_text(page)


def _examples(rows: list[dict], count: int) -> list[dict[str, dict]]:
    """Choose tag sets, each as {kind: row}, in turn over the first tags of their sets."""
    groups = {}
    for row in rows:
        kind, number = row["id"].split("-")
        if kind in _HEARD:
            groups.setdefault(number, {})[kind] = row
    seen = {}
    for number, group in groups.items():
        first = group["played"]["aspect_list"][0]
        turn = sum(other == first for other in seen.values())
        groups[number] = group | {"turn": turn}
        seen[number] = first
    ordered = sorted(groups.values(), key=lambda group: group["turn"])
    return ordered[:count]


def _example(group: dict[str, dict]) -> str:
    row = group["played"]
    players = "".join(
        f'<td><audio controls preload="none" aria-label="{_HEARD[kind]}" '
        'src="data:audio/flac;base64,'
        f'{base64.b64encode(group[kind]["audio"]["bytes"]).decode()}"></audio></td>'
        for kind in _HEARD
    )
    tags = ", ".join(row["aspect_list"])
    text = f"<b>{escape(tags)}</b><br>{escape(row['caption'])}"
    return f'<tr><td class="caption">{text}</td>{players}</tr>\n'
