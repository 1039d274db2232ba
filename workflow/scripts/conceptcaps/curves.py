"""Curves of a training for the report."""

from pathlib import Path

from conceptcaps.figurestyle import BLUE, GREY, ORANGE, drawing
from conceptcaps.io import read_rows

SMOOTHED = 0.05  # share of the steps that the thick training curve averages over


def plot_captioner(*, history: str | Path, output) -> None:
    """Draw the captioner's losses and learning rate, step by step (table `schemas.FINETUNING`).

    Args:
        history: the table.
        output: object with the paths `png` and `svg`.
    """
    rows = read_rows(history)
    steps = [row for row in rows if row["loss"] is not None]
    looks = [row for row in rows if row["validation_loss"] is not None]
    best = min(looks[1:], key=lambda row: row["validation_loss"])  # the first has no adapter
    epochs, losses = [row["epoch"] for row in steps], [row["loss"] for row in steps]
    with drawing(output, height=2.5) as figure:
        loss, rate = figure.subplots(1, 2, width_ratios=(2, 1))
        loss.plot(epochs, losses, color=BLUE, alpha=0.3, linewidth=0.7)
        size = max(1, round(SMOOTHED * len(steps)))
        means = [sum(losses[k : k + size]) / size for k in range(len(losses) - size + 1)]
        middle = epochs[size // 2 : size // 2 + len(means)]
        loss.plot(middle, means, color=BLUE, label=f"training, mean over {size}")
        x, y = ([row[name] for row in looks] for name in ("epoch", "validation_loss"))
        loss.plot(x, y, color=ORANGE, linestyle="--", marker="o", markersize=3, label="validation")
        loss.axvline(best["epoch"], color=GREY, linewidth=0.8, zorder=0)
        loss.set(xlabel="epoch", ylabel="loss (nats per token)", ylim=(0, None))
        loss.set_title(
            f"{len(steps)} steps; kept: step {best['step']}, {best['validation_loss']:.3f}"
        )
        loss.legend()
        rate.plot(epochs, [row["learning_rate"] for row in steps], color=GREY)
        rate.set(xlabel="epoch", title="Learning rate", ylim=(0, None))
        for axes in (loss, rate):
            axes.grid(color="0.92")
