"""The common style of every figure: palette, fonts, sizes, and how one is written."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from conceptcaps.categories import TAGS_OF
from conceptcaps.io import atomic

# Okabe and Ito's palette, which readers with any colour vision tell apart.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
GREY = "#7F7F7F"
COLOUR_OF = {"conceptcaps": BLUE, "base": ORANGE, "zero_shot": GREEN}  # others are grey
CATEGORY_COLOURS = dict(zip(TAGS_OF, (BLUE, PINK, GREEN, ORANGE), strict=True))
CATEGORY_MARKERS = dict(zip(TAGS_OF, "o^sD", strict=True))
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "hatch.linewidth": 0.5,
    "savefig.dpi": 200,
    "svg.hashsalt": "conceptcaps",  # or element ids are random
}
WIDTH = 7.0  # inches: two journal columns, or a page's text
COLUMN = 3.4  # inches: one journal column


@contextmanager
def drawing(output, *, height: float, width: float = WIDTH) -> Iterator[Figure]:
    """Yield an empty figure (size in inches); on success write it to output.png and .svg.

    Equal figures give equal bytes. `output` is an object with the paths `png` and `svg`.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        _settle(figure)
        with atomic(output.png) as temporary:
            figure.savefig(temporary, format="png")
        with atomic(output.svg) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _settle(figure: Figure) -> None:
    """Lay axes and subfigures out once, at rounded places.

    The layout's solver differs in its last digits from one run to the next, and the names of SVG
    elements are hashes of all of them.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    parts = list(figure.subfigs)
    while parts:
        part = parts.pop()
        part.bbox_relative.set_points(np.round(part.bbox_relative.get_points(), 6))
        parts += part.subfigs
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 6))
