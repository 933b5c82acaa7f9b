"""One picture of several models: their coefficients with 95 % intervals, and what they get wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from parties.demo_reference import Model, Quality

_Z95 = 1.959964
_MOST_FEATURES = 10
_RANGE = (0.07, 70.0)  # what reaches beyond ends in an arrow head
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
# Okabe and Ito's palette, which people who see colours differently can tell apart.
_INK, _GREY, _RULE = "#1b1b1b", "#5f6b76", "#e3e7ea"
_JOINT = "#0072b2"
_ALONE = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_WIDTH = 9.0
_MARGIN, _KEY_COLUMNS = 0.3, (4.75, 6.3, 7.85)  # inches from the left


@dataclass(frozen=True, slots=True)
class Shown:
    """A model as the picture shows it: what to call it, and on how many patients it rests."""

    label: str
    model: Model
    patients: int
    quality: Quality


def draw(
    path: Path,
    features: Sequence[str],
    deviations: NDArray[np.float64],
    joint: Shown,
    pooled: Shown,
    alone: Sequence[Shown],
) -> None:
    """Draw the joint model beside the pooled one and beside the model that each hospital gets alone.

    Parameters
    ----------
    path : Path
        What to write; its suffix says the format.
    features : sequence of str
        Names of the features.
    deviations : numpy.ndarray
        Their standard deviations: the picture shows odds ratios for one of these.
    joint, pooled : Shown
    alone : sequence of Shown
    """
    from matplotlib.figure import Figure

    sure = np.argsort(-np.abs(joint.model.coef / joint.model.std_err[1:]))[:_MOST_FEATURES]
    which = sure[np.argsort(-joint.model.coef[sure] * deviations[sure])]  # strongest on top

    # Inches from the top: heading, key, picture, axis.
    key_top, line = 1.5, 0.26
    top = key_top + line * (1 + len(alone)) + 0.4
    height = top + len(which) * 0.15 * (2.2 + len(alone)) + 0.75
    figure = Figure(figsize=(_WIDTH, height), dpi=150, facecolor="white")
    page = figure.add_axes((0, 0, 1, 1), xlim=(0, _WIDTH), ylim=(height, 0))
    page.axis("off")
    _heading(page, len(which), len(features))
    _key(page, key_top, line, joint, pooled, alone)
    page.hlines([key_top - 0.2, top - 0.14], _MARGIN, _WIDTH - _MARGIN, color=_RULE, linewidth=1.2)

    left, right = 2.15, _WIDTH - _MARGIN
    axes = figure.add_axes(
        (left / _WIDTH, 0.75 / height, (right - left) / _WIDTH, (height - top - 0.75) / height),
        xscale="log",
        xlim=_RANGE,
        ylim=(len(which) - 0.5, -0.5),
    )
    _frame(axes, [features[k] for k in which])
    slopes = [(shown.model.coef * deviations)[which] for shown in (joint, pooled, *alone)]
    reach = [_Z95 * (shown.model.std_err[1:] * deviations)[which] for shown in (joint, pooled, *alone)]
    lanes = np.linspace(-0.29, 0.31, 1 + len(alone)) + np.arange(len(which))[:, None]
    _intervals(axes, slopes[0], reach[0], lanes[:, 0], _JOINT, strong=True)
    _rings(axes, slopes[1], reach[1], lanes[:, 0])
    for k, colour in zip(range(len(alone)), _ALONE, strict=False):
        _intervals(axes, slopes[2 + k], reach[2 + k], lanes[:, 1 + k], colour, strong=False)
    figure.savefig(path)


def _heading(page: Any, shown: int, features: int) -> None:
    page.text(_MARGIN, 0.45, "One model from all hospitals, no patient shown", fontsize=16, weight="bold", color=_INK)
    surest = f"The {shown} of {features} features it is surest of."
    page.text(_MARGIN, 0.74, f"Trained on secret shares; rings and ticks: on pooled data. {surest}", **_words(_GREY))


def _key(page: Any, top: float, line: float, joint: Shown, pooled: Shown, alone: Sequence[Shown]) -> None:
    """Say which mark is which model, and how each does on patients that none of them has seen."""
    malignant, benign = (f"of {n} held out" for n in (joint.quality.malignant, joint.quality.benign))
    heads = (("patients", "it learnt from"), ("cancers missed", malignant), ("false alarms", benign))
    for x, (upper, lower) in zip(_KEY_COLUMNS, heads, strict=True):
        page.text(x, top - 0.47, upper, fontsize=9, color=_GREY, ha="right")
        page.text(x, top - 0.31, lower, fontsize=9, color=_GREY, ha="right")
    for k, shown in enumerate((joint, pooled, *alone)):
        y = top + line * k
        colour = (_JOINT, _INK, *_ALONE)[k]
        _mark(page, y, colour, strong=k == 0, ring=k == 1)
        page.text(_MARGIN + 0.75, y, shown.label, **_words(_JOINT if k == 0 else _INK), va="center")
        numbers = (shown.patients, shown.quality.missed, shown.quality.false_alarms)
        for x, number in zip(_KEY_COLUMNS, numbers, strict=True):
            page.text(x, y, f"{number}", **_words(_INK), ha="right", va="center")


def _words(colour: str) -> dict[str, Any]:
    return {"fontsize": 10.5, "color": colour, "weight": "bold" if colour == _JOINT else "normal"}


def _mark(page: Any, y: float, colour: str, *, strong: bool, ring: bool) -> None:
    if ring:
        page.plot([_MARGIN, _MARGIN + 0.5], [y, y], "|", color=colour, markersize=10, markeredgewidth=1.3)
        page.plot(_MARGIN + 0.25, y, "o", color="none", markeredgecolor=colour, markersize=10)
        return
    page.hlines(y, _MARGIN, _MARGIN + 0.5, color=colour, linewidth=3.2 if strong else 1.5)
    page.plot(_MARGIN + 0.25, y, "o", color=colour, markersize=7 if strong else 4.5)


def _frame(axes: Any, names: Sequence[str]) -> None:
    axes.axvline(1, color=_INK, linewidth=1, zorder=1.8)
    axes.hlines(np.arange(1, len(names)) - 0.5, *_RANGE, color=_RULE, linewidth=0.8, zorder=0)
    axes.set_yticks(range(len(names)), names, fontsize=10.5, color=_INK)
    axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS], fontsize=10, color=_INK)
    axes.set_xticks([], minor=True)
    axes.set_xlabel(
        "Odds ratio of a malignant tumour for one standard deviation more, with 95 % interval",
        fontsize=10.5,
        color=_INK,
    )
    axes.tick_params(length=0)
    axes.tick_params(axis="y", pad=14)
    axes.grid(axis="x", color=_RULE, linewidth=0.8, zorder=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _intervals(axes: Any, slopes: Any, reach: Any, lanes: Any, colour: str, *, strong: bool) -> None:
    low, high = np.exp(slopes - reach), np.exp(slopes + reach)
    axes.hlines(lanes, low, high, color=colour, linewidth=3.2 if strong else 1.5, zorder=2)
    axes.plot(np.exp(slopes), lanes, "o", color=colour, markersize=7 if strong else 4.5, zorder=3)
    for ends, edge, arrow in ((low < _RANGE[0], _RANGE[0], "<"), (high > _RANGE[1], _RANGE[1], ">")):
        axes.plot(np.full(ends.sum(), edge), lanes[ends], arrow, color=colour, markersize=5, clip_on=False, zorder=3)


def _rings(axes: Any, slopes: Any, reach: Any, lanes: Any) -> None:
    for ends in (slopes - reach, slopes + reach):
        axes.plot(np.exp(ends), lanes, "|", color=_INK, markersize=10, markeredgewidth=1.3, zorder=4)
    axes.plot(np.exp(slopes), lanes, "o", color="none", markeredgecolor=_INK, markersize=10, zorder=4)
