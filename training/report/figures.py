"""Drawings of the report, as PNG files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names
from matplotlib.ticker import MaxNLocator, PercentFormatter

from training.evaluation.calibration import Bins

History = Sequence[dict[str, float]]

INK, QUIET, GRID = "#1d2733", "#6b7785", "#e3e7ec"
TRAIN, VAL, SECOND, GAP = "#9aa5b1", "#1f5fbf", "#3a9d6e", "#d9534f"
BLUES = LinearSegmentedColormap.from_list("halftone", ["#ffffff", "#cfe0f7", "#5b93dd", "#123f85"])

DPI = 144
MOST_NUMBERED = 20
MOST_NAMED = 60
LONGEST_LABEL = 24

FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "PingFang SC", "Microsoft YaHei"),
    *("Noto Emoji", "Segoe UI Emoji"),
)
"""Fonts, where installed, for letters of class names that Matplotlib's own font lacks."""


def curves(history: History) -> bytes:
    """Draw loss and accuracy by epoch.

    Args:
        history: one dictionary per epoch with `epoch`, and any of `train_loss`, `val_loss`, `val_top1`, `val_top5`
            (0..1).
    """
    figure, (left, right) = _figure(9.6, 3.6, columns=2)
    _line(left, history, "train_loss", "training (augmented, smoothed labels)", TRAIN)
    _line(left, history, "val_loss", "validation", VAL)
    _finish(left, "Loss", "nats")
    _line(right, history, "val_top5", "top-5", SECOND)
    _line(right, history, "val_top1", "top-1", VAL)
    right.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    _mark_best(right, history)
    _finish(right, "Validation accuracy", "")
    return _png(figure)


def schedule(history: History) -> bytes:
    """Draw learning rate and training speed by epoch.

    Args:
        history: one dictionary per epoch with `epoch`, and any of `lr`, `images_per_second`.
    """
    figure, (left, right) = _figure(9.6, 2.8, columns=2)
    _line(left, history, "lr", "learning rate", VAL)
    _finish(left, "Learning rate", "", legend=False)
    _line(right, history, "images_per_second", "images/s", SECOND)
    _finish(right, "Training speed", "images/s", legend=False)
    for axes in (left, right):
        axes.set_ylim(bottom=0)
    return _png(figure)


def confusion_matrix(matrix: npt.NDArray[np.int64], labels: Sequence[str]) -> bytes:
    """Draw the confusion matrix: rows are true classes, columns predictions; colours are shares of the row.

    Args:
        matrix: int64 (C, C).
        labels: C class names; omitted above 60 classes.
    """
    classes = len(labels)
    side = min(11.0, max(4.0, 1.6 + 0.36 * classes))
    figure, (axes,) = _figure(side, side * 0.92, columns=1)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap=BLUES, vmin=0, vmax=1, aspect="equal", interpolation="nearest")
    if classes <= MOST_NUMBERED:
        _number_cells(axes, matrix, shares)
    _name_classes(axes, labels)
    axes.set_xlabel("predicted class", color=QUIET)
    axes.set_ylabel("true class", color=QUIET)
    axes.spines[:].set_visible(False)
    return _png(figure)


def reliability_diagram(before: Bins, after: Bins, temperature: float) -> bytes:
    """Draw accuracy by confidence, before and after the temperature; on the diagonal, both are equal.

    Args:
        before: of the softmax of the logits.
        after: of the softmax of the logits divided by the temperature.
        temperature: for the title.
    """
    figure, panels = _figure(9.6, 4.0, columns=2)
    titles = ("Before calibration", f"After: temperature {temperature:.3g}")
    for axes, bins, title in zip(panels, (before, after), titles, strict=True):
        _reliability(axes, bins)
        axes.set_title(f"{title}, ECE {bins.error:.2%}", loc="left", fontsize=10.5, color=INK, weight="bold")
    return _png(figure)


def _reliability(axes: Axes, bins: Bins) -> None:
    count = len(bins.count)
    centres, width, filled = (np.arange(count) + 0.5) / count, 1 / count, bins.count > 0
    confidence, accuracy = bins.confidence[filled], bins.accuracy[filled]
    low, gap = np.minimum(confidence, accuracy), np.abs(confidence - accuracy)
    axes.bar(centres[filled], low, width * 0.92, color=VAL, alpha=0.85, label="correct")
    overconfident = confidence > accuracy
    for chosen, colour, name in ((overconfident, GAP, "overconfident"), (~overconfident, SECOND, "underconfident")):
        if gap[chosen].any():
            places = centres[filled][chosen]
            axes.bar(places, gap[chosen], width * 0.92, bottom=low[chosen], color=colour, alpha=0.45, label=name)
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--")
    share = bins.count / max(1, int(bins.count.sum()))
    axes.step(
        np.linspace(0, 1, count + 1),
        [*share, share[-1]],
        where="post",
        color=INK,
        linewidth=1,
        label="share of pictures",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlabel("confidence", color=QUIET)
    _style(axes)
    axes.legend(frameon=False, fontsize=8.5, loc="upper left", labelcolor=INK)


def _figure(width: float, height: float, *, columns: int) -> tuple[Figure, list[Axes]]:
    # Without pyplot: no global state, no display, no leak.
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)
    return figure, list(axes[0])


def _line(axes: Axes, history: History, key: str, label: str, colour: str) -> None:
    points = [(row["epoch"], row[key]) for row in history if key in row and np.isfinite(row[key])]
    if points:
        marker = "o" if len(points) <= 30 else ""
        axes.plot(*zip(*points, strict=True), color=colour, label=label, linewidth=1.8, marker=marker, markersize=3.5)


def _mark_best(axes: Axes, history: History) -> None:
    known = [row for row in history if np.isfinite(row.get("val_top1", np.nan))]
    if not known:
        return
    best = max(known, key=lambda row: row["val_top1"])
    axes.plot(best["epoch"], best["val_top1"], "o", markersize=9, markerfacecolor="none", markeredgecolor=VAL)
    axes.annotate(
        f"best {best['val_top1']:.2%}",
        (best["epoch"], best["val_top1"]),
        xytext=(0, -18),
        textcoords="offset points",
        fontsize=9,
        color=VAL,
        ha="center",
    )


def _finish(axes: Axes, title: str, unit: str, *, legend: bool = True) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, weight="bold")
    axes.set_xlabel("epoch", color=QUIET)
    axes.set_ylabel(unit, color=QUIET)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _style(axes)
    if legend and axes.get_legend_handles_labels()[0]:
        # Above the axes: looking for a free place takes seconds on a busy machine, which matplotlib warns of.
        axes.legend(
            frameon=False, fontsize=8.5, labelcolor=INK, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderpad=0
        )


def _style(axes: Axes) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=QUIET, labelsize=8.5, length=0)


def _number_cells(axes: Axes, matrix: npt.NDArray[np.int64], shares: npt.NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            colour = "white" if shares[row, column] > 0.5 else INK
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)


def _name_classes(axes: Axes, labels: Sequence[str]) -> None:
    if len(labels) > MOST_NAMED:
        axes.tick_params(colors=QUIET, labelsize=8, length=0)
        return
    places = range(len(labels))
    names = [label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…" for label in labels]
    # Class names are not formulas, even if they contain dollar signs.
    fonts = ["DejaVu Sans", *(set(FALLBACKS) & set(get_font_names()))]
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", parse_math=False, fontfamily=fonts)
    axes.set_yticks(places, names, parse_math=False, fontfamily=fonts)
    axes.tick_params(colors=INK, labelsize=9 if len(labels) <= MOST_NUMBERED else 6.5, length=0)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The font may lack letters of class names: the drawing shows boxes, the table the correct letters.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
