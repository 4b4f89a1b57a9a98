"""Figures from records: scores, times and spectra against the rank. Neither torch nor training."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dylora.errors import UserError
from dylora.metrics import metric_named
from dylora.results.curves import Panel, Series, band, device, panels, seconds, seeds
from dylora.results.drawing import (
    BASELINE,
    RC,
    WIDE,
    axes_of,
    file_name,
    label_ends,
    legend,
    rank_axis,
    save,
    shade,
    style,
)
from dylora.results.runs import Problem, Run
from dylora.results.spectra import readable_spectra
from dylora.results.stats import Summary, summarize

if TYPE_CHECKING:  # matplotlib takes a second to import, and is needed only to draw
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Drawn:
    """What became of the figures: files, what was not drawn and why, and what is at fault."""

    files: list[Path]
    not_drawn: list[str]
    problems: list[Problem]


def write_figures(runs: Iterable[Run], folder: Path) -> Drawn:
    """Draw all that the finished runs allow, each as PNG and PDF.

    Per task, model and protocol: scores, time to cover ranks, singular values. Raises UserError
    without matplotlib.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install 'dylora[report]'") from error
    drawings: dict[str, Callable[[Panel, list[Problem]], Figure | str]] = {
        "scores": scores_figure,
        "time": time_figure,
        "spectra": spectra_figure,
    }
    drawn = Drawn([], [], [])
    with mpl.rc_context(RC):
        for panel in panels(runs):
            for kind, draw in drawings.items():
                figure = draw(panel, drawn.problems)
                if isinstance(figure, str):
                    drawn.not_drawn.append(f"{kind} of {panel.title}: {figure}")
                else:
                    drawn.files.extend(save(figure, folder / f"{kind}.{file_name(panel.title)}"))
    return drawn


def scores_figure(panel: Panel, _: list[Problem]) -> "Figure":
    """Score against rank, the mean over seeds with its 95% confidence band; an axis per metric.

    Beside them, where LoRA was trained at each rank, what the first metric gains or loses to it.
    """
    bar = next((series for series in panel.series if series.each_rank), None)
    figure, axes = axes_of(panel.title, len(panel.metrics) + (bar is not None))
    top = max(rank for series in panel.series for rank in series.runs)
    banded = False
    for metric, ax in zip(panel.metrics, axes, strict=False):
        for series in panel.series:
            banded |= _draw_scores(ax, series, metric)
        if metric in panel.majority:
            ax.axhline(panel.majority[metric], label="_", color="#888888", linestyle=(0, (1, 3)))
            ax.annotate("most frequent class", (0.02, panel.majority[metric]), **BASELINE)
        rank_axis(ax, top, "rank")
        ax.set_ylabel(metric_named(metric).axis)
    if bar is not None:
        _draw_gaps(axes[-1], panel, bar)
        rank_axis(axes[-1], top, "rank")
    label_ends(axes[len(panel.metrics) - 1])
    bands = "; bands: 95% confidence (Student's t)" * banded
    figure.supxlabel(f"mean over seeds{bands}", fontsize="small")
    return figure


def _draw_scores(ax: "Axes", series: Series, metric: str) -> bool:
    """Whether a band was drawn: only ranks with three seeds have one."""
    summaries, look = series.summary(metric), style(series.look)
    if not summaries:
        return False
    label = f"{series.name} ({seeds(s.n for s in summaries.values())})"
    if series.flat:
        ax.axhline(summaries[0].mean, label=label, **look | {"marker": ""})
        return False
    ranks = sorted(summaries)
    # Of many ranks the powers of two have a marker.
    marked = [i for i, rank in enumerate(ranks) if len(ranks) <= WIDE or rank.bit_count() == 1]
    means = [summaries[rank].mean for rank in ranks]
    ax.plot(ranks, means, label=label, markevery=marked, **look)
    bands = {rank: b for rank in ranks if (b := band(summaries[rank], metric)) is not None}
    if bands:
        low, high = zip(*bands.values(), strict=True)
        ax.fill_between(list(bands), low, high, color=look["color"], alpha=0.15, linewidth=0)
    return bool(bands)


def _draw_gaps(ax: "Axes", panel: Panel, bar: Series) -> None:
    """Each series minus `bar`, of the panel's first metric, at the ranks that both have."""
    metric = panel.metrics[0]
    dedicated = bar.summary(metric)
    for series in panel.series:
        found = series.summary(metric)
        ranks = sorted(set(found) & set(dedicated))
        if ranks and series is not bar:
            gaps = [found[rank].mean - dedicated[rank].mean for rank in ranks]
            ax.plot(ranks, gaps, **style(series.look))
    ax.axhline(0, **style(bar.look) | {"marker": ""})
    ax.set_ylabel(f"{metric_named(metric).label} minus that of\n{bar.name}")


def time_figure(panel: Panel, _: list[Problem]) -> "Figure | str":
    """Hours until k ranks have an adapter: LoRA trained once per rank, DyLoRA once for all.

    Of the device with most runs; LoRA is charged for scoring its own rank only.
    """
    each = [series for series in panel.series if series.each_rank]
    once = [s for s in panel.series if s.method.trains_every_rank and s.cut is None]
    devices = Counter(device(run) for series in [*each, *once] for run in series.all_runs)
    if not each or not once:
        return "needs DyLoRA, and LoRA trained at two ranks or more"
    place = devices.most_common(1)[0][0]
    figure, (ax,) = axes_of(panel.title, 1)
    for series in each:
        spent = [s for same in series.runs.values() if (s := _hours(same, place, own=True))]
        total = np.cumsum([summary.mean for summary in spent])
        if spent:
            label = f"{series.name} ({seeds(s.n for s in spent)})"
            ax.plot(range(1, len(total) + 1), total, label=label, **style(series.look))
    for series in once:
        spent_once = _hours(series.all_runs, place, own=False)
        if spent_once:
            ranks = range(1, len(series.runs) + 1)
            label = f"{series.name} ({seeds([spent_once.n])})"
            ax.plot(ranks, [spent_once.mean] * len(ranks), label=label, **style(series.look))
    top = max(len(series.runs) for series in [*each, *once])
    rank_axis(ax, top, "ranks covered")
    ax.set_ylabel("hours of training and evaluation")
    ax.set_ylim(bottom=0)
    label_ends(ax)
    figure.supxlabel(
        f"mean over seeds, on {place}; level lines: one training for all ranks", fontsize="small"
    )
    return figure


def _hours(runs: Iterable[Run], place: str, own: bool) -> Summary | None:
    values = [seconds(run, own) / 3600 for run in runs if device(run) == place]
    return summarize(values) if values else None


def spectra_figure(panel: Panel, problems: list[Problem]) -> "Figure | str":
    """Singular values of the deltas at ranks 1, 2, 4, ..., the mean over layers and seeds.

    A run whose adapter cannot be read is added to `problems` and left out.
    """
    found = {}
    for series in panel.series:
        if series.flat or series.each_rank or series.cut:
            continue
        values = [v for run in series.all_runs if (v := readable_spectra(run, problems))]
        if values:
            found[f"{series.name} ({seeds([len(values)])})"] = values
    if not found:
        return "no run's folder has an adapter (they are not in git)"
    figure, axes = axes_of(panel.title, len(found), sharey=True)
    for ax, (name, values) in zip(axes, found.items(), strict=True):
        ranks = sorted(values[0])
        for number, rank in enumerate(ranks):
            mean = np.concatenate([v[rank] for v in values]).mean(axis=0)
            look = style(number) | {"color": shade(number / len(ranks))}
            ax.semilogy(range(1, rank + 1), mean, label=f"used at rank {rank}", **look)
        ax.set_title(name, fontsize="medium")
        rank_axis(ax, ranks[-1], "singular value, from the largest")
    axes[0].set_ylabel("value (scaled delta)")
    legend(figure, axes, "Mean over adapted layers and seeds")
    return figure
