"""The parts of what ``sottovoce demo`` prints."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from parties.demo_data import FEATURES, Hospital
from parties.display import heading, human_bytes, make_table

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console
    from rich.table import Table

    from parties.demo import Findings
    from parties.demo_figure import Shown
    from parties.demo_watch import Board, Sight, Stage

_SHOWN_FEATURES = 8
_BAR_LENGTH = 22
_UNIFORMITY_BINS = 64
_REFRESH_SECONDS = 0.1


def show_hospitals(console: Console, hospitals: Sequence[Hospital]) -> None:
    """Introduce the hospitals."""
    heading(console, f"{len(hospitals)} hospitals want one model: is a breast tumour malignant?")
    table = make_table("hospital", "patients", "malignant", "mean radius", "held out")
    for hospital in hospitals:
        malignant = f"{hospital.y.sum()} ({hospital.y.mean():.0%})"
        radius = f"{hospital.X[:, 0].mean():.1f}"
        table.add_row(hospital.name, f"{len(hospital.y)}", malignant, radius, f"{len(hospital.y_held_out)}")
    console.print(table)
    console.print(
        f"\nReal patients (Wisconsin, {len(FEATURES)} features of cell nuclei), dealt out to made-up hospitals. "
        "Each is a process of its own; they talk over mutual TLS, and say nothing of a patient but under a "
        "random mask.\n"
    )


@contextmanager
def show_progress(console: Console, board: Board) -> Iterator[None]:
    """Show how far the parties are while they compute; only where somebody watches."""
    if not console.is_terminal:
        yield
        return
    ended, succeeded = threading.Event(), threading.Event()
    display = threading.Thread(target=_follow, args=(console, board, ended, succeeded), name="progress", daemon=True)
    display.start()
    try:
        yield
        succeeded.set()
    finally:
        ended.set()
        display.join()


def _follow(console: Console, board: Board, ended: threading.Event, succeeded: threading.Event) -> None:
    from rich.live import Live

    # Nothing is touched until the first message: by then all processes are forked, and none of them
    # inherits a lock of the display.
    while not board.read():
        if ended.wait(_REFRESH_SECONDS):
            return
    with Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        for turn in count():
            is_last = ended.wait(_REFRESH_SECONDS)
            live.update(_progress_table(board.read(), turn, done=succeeded.is_set()), refresh=True)
            if is_last:
                return


def _progress_table(stages: Sequence[Stage], turn: int, *, done: bool) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for stage in stages:
        finished = done or stage is not stages[-1]
        table.add_row(
            "[green]+[/green]" if finished else "|/-\\"[turn % 4],
            stage.name,
            f"{stage.seconds:6.2f} s",
            f"received {human_bytes(stage.bytes_received)}",
            "" if finished else stage.place,
        )
    return table


def show_findings(console: Console, found: Findings) -> None:
    """Print what all hospitals learn: the features that the joint model is surest of."""
    model = found.model
    heading(console, "What all of them learn")
    console.print(
        f"{found.patients} patients, {found.malignant} of them malignant; and of each feature (the surest first):\n"
    )
    table = make_table("feature", "mean", "SD", "odds ratio\nper SD", "95 % interval", "p")
    sure = np.argsort(model.p_value[1:])[:_SHOWN_FEATURES]
    for k in sure:
        deviation = found.deviations[k]
        low, high = np.exp(model.conf_int[1 + k] * deviation)
        table.add_row(
            FEATURES[k],
            f"{found.means[k]:.3g}",
            f"{deviation:.3g}",
            f"{np.exp(model.coef[k] * deviation):.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{model.p_value[1 + k]:.2f}",
        )
    console.print(table)
    console.print(
        f"\n... and {len(FEATURES) - _SHOWN_FEATURES} more; many say much the same, hence the wide intervals. They "
        "also learn how many patients each hospital has, and whether the fit converged; nothing of the way there."
    )


def show_comparison(console: Console, models: Sequence[Shown], difference: float) -> None:
    """Print how the models do on the patients that were held out; the joint and the pooled one come first."""
    tried = models[0].quality
    heading(console, f"Alone or together: {tried.malignant + tried.benign} patients that no model has seen")
    missed, alarms = f"cancers missed\n(of {tried.malignant})", f"false alarms\n(of {tried.benign})"
    table = make_table("model", "trained on\npatients", missed, alarms, "log loss")
    for shown in models:
        quality = shown.quality
        table.add_row(
            shown.label, f"{shown.patients}", f"{quality.missed}", f"{quality.false_alarms}", f"{quality.log_loss:.3f}"
        )
    console.print(table)
    console.print(
        f"\nJoint and pooled model differ by at most {difference:.1e} standard errors of a coefficient. (This "
        "demonstration has all patients, and can compare; the hospitals never pool theirs.)"
    )


def show_sight(console: Console, hospitals: Sequence[Hospital], sight: Sight) -> None:
    """Print what one party got to see of all patients, beside what it would see without masks."""
    from scipy.stats import chisquare

    heading(console, f"What the {hospitals[0].name.lower()} saw of the others' patients")
    X = np.concatenate([hospital.X for hospital in hospitals])
    scores = ((X - X.mean(axis=0)) / X.std(axis=0)).ravel()
    counts = np.bincount((sight.values * _UNIFORMITY_BINS).astype(np.int64), minlength=_UNIFORMITY_BINS)
    p_value = float(chisquare(counts).pvalue)

    console.print(
        f"The {sight.values.size:,} values of all patients arrived under a mask each, as numbers below 2^127 "
        f"(step {sight.step}):\n"
    )
    edges = np.arange(-2, 7)
    truth = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)[0]
    arrived = np.histogram(sight.values, np.linspace(0, 1, truth.size + 1))[0]
    console.print(f"{'their values, in SDs':<36}what arrived, in eighths of the range")
    for k in range(truth.size):
        left = f"{edges[k]:>+3} to {edges[k + 1]:+}  {_bar(console, truth, k)}"
        console.print(f"{left:<36}{k} to {k + 1}  {_bar(console, arrived, k)}")
    console.print(
        f"\nUniform? Chi-square over {_UNIFORMITY_BINS} classes: p = {p_value:.2f}. (Masks are new in each run, and so "
        "is p: below 0.05 one time in twenty.) Truncations and comparisons hide a value under a mask 40 bits longer "
        "than it is, which leaves a trace of at most 2^-40."
    )


def _bar(console: Console, counts: NDArray[np.int64], k: int) -> str:
    full, trace = ("#", ".") if console.options.ascii_only else ("\u2588", "\u258f")
    length = round(_BAR_LENGTH * counts[k] / counts.max())
    return full * length or trace * bool(counts[k])
