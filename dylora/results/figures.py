"""Figures from records: scores, times and spectra against the rank. Neither torch nor training.

Colors are Okabe and Ito's, which color-blind readers can tell apart; every series has a line
style and a marker of its own too, for print without colors.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from dylora.errors import UserError
from dylora.files import ADAPTER, whole_file
from dylora.methods import METHODS
from dylora.metrics import metric_named
from dylora.results.curves import Panel, Series, band, device, panels, seconds, seeds
from dylora.results.runs import Problem, Run
from dylora.results.stats import Summary, summarize

if TYPE_CHECKING:  # matplotlib takes a second to import, and is needed only to draw
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (3, 1)))
MARKERS = ("o", "s", "^", "x", "D", "v", "P")
ACROSS = 3  # panels side by side
WIDE = 16  # a highest rank above this is drawn on a logarithmic axis
RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.markersize": 4,
    "pdf.fonttype": 42,  # text stays text, and journals accept the file
}


def write_figures(runs: Iterable[Run], folder: Path) -> tuple[list[Path], list[Problem]]:
    """Draw all that the finished runs allow, each as PNG and PDF; the files, and what was left out.

    Per task and model: scores, time to cover ranks (where LoRA was trained at several ranks and
    DyLoRA was run) and singular values (where run folders hold adapters). Raises UserError without
    matplotlib.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install 'dylora[report]'") from error
    drawings: dict[str, Callable[[Panel, list[Problem]], Figure | None]] = {
        "scores": scores_figure,
        "time": time_figure,
        "spectra": spectra_figure,
    }
    written: list[Path] = []
    problems: list[Problem] = []
    with mpl.rc_context(RC):
        for panel in panels(runs):
            for kind, draw in drawings.items():
                figure = draw(panel, problems)
                if figure is not None:
                    written += _save(figure, folder / f"{kind}.{_file_name(panel.title)}")
    return written, problems


def style(number: int) -> dict[str, Any]:
    """Color, line style and marker of a series; repeats after seven, with another marker."""
    turn = number // len(COLORS)
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[(number + turn) % len(MARKERS)],
    }


def scores_figure(panel: Panel, _: list[Problem]) -> "Figure":
    """Score against rank, the mean over seeds with its 95% confidence band; an axis per metric."""
    figure, axes = _axes(panel.title, len(panel.metrics))
    top = max(rank for series in panel.series for rank in series.runs)
    for metric, ax in zip(panel.metrics, axes, strict=True):
        for series in panel.series:
            _draw_scores(ax, series, metric)
        _rank_axis(ax, top, "rank")
        ax.set_ylabel(metric_named(metric).axis)
    _legend(figure, axes, "Mean over seeds; bands: 95% confidence (Student's t), from 3 seeds")
    return figure


def _draw_scores(ax: "Axes", series: Series, metric: str) -> None:
    summaries, look = series.summary(metric), style(series.look)
    if not summaries:
        return
    label = f"{series.name} ({seeds(s.n for s in summaries.values())})"
    if series.flat:
        ax.axhline(summaries[0].mean, label=label, **look | {"marker": ""})
        return
    ranks = sorted(summaries)
    # With many ranks a marker at the powers of two is enough.
    marked = [i for i, rank in enumerate(ranks) if len(ranks) <= WIDE or rank.bit_count() == 1]
    means = [summaries[rank].mean for rank in ranks]
    ax.plot(ranks, means, label=label, markevery=marked, **look)
    bands = {rank: b for rank in ranks if (b := band(summaries[rank], metric)) is not None}
    if bands:
        low, high = zip(*bands.values(), strict=True)
        ax.fill_between(list(bands), low, high, color=look["color"], alpha=0.15, linewidth=0)


def time_figure(panel: Panel, _: list[Problem]) -> "Figure | None":
    """Hours until k ranks have an adapter: LoRA trained once per rank, DyLoRA once for all.

    Of the device with the most runs alone. LoRA is charged for scoring its own rank only.
    """
    each = [series for series in panel.series if series.each_rank]
    once = [series for series in panel.series if series.method.trains_every_rank]
    devices = Counter(device(run) for series in [*each, *once] for run in series.all_runs)
    if not each or not once:
        return None
    place = devices.most_common(1)[0][0]
    figure, (ax,) = _axes(panel.title, 1)
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
            label = f"{series.name}, once for all ranks ({seeds([spent_once.n])})"
            ax.plot(ranks, [spent_once.mean] * len(ranks), label=label, **style(series.look))
    top = max(len(series.runs) for series in [*each, *once])
    _rank_axis(ax, top, "ranks covered")
    ax.set_ylabel("hours of training and evaluation")
    ax.set_ylim(bottom=0)
    _legend(figure, [ax], f"Mean over seeds, on {place}")
    return figure


def _hours(runs: Iterable[Run], place: str, own: bool) -> Summary | None:
    values = [seconds(run, own) / 3600 for run in runs if device(run) == place]
    return summarize(values) if values else None


def spectra_figure(panel: Panel, problems: list[Problem]) -> "Figure | None":
    """Singular values of the deltas at ranks 1, 2, 4, ..., the mean over layers and seeds.

    A run whose adapter cannot be read is added to `problems` and left out.
    """
    found = {}
    for series in panel.series:
        if series.flat or series.each_rank or series.cut:
            continue
        values = [v for run in series.all_runs if (v := _spectra_if_readable(run, problems))]
        if values:
            found[f"{series.name} ({seeds([len(values)])})"] = values
    if not found:
        return None
    figure, axes = _axes(panel.title, len(found), sharey=True)
    for ax, (name, values) in zip(axes, found.items(), strict=True):
        ranks = sorted(values[0])
        for number, rank in enumerate(ranks):
            mean = np.concatenate([v[rank] for v in values]).mean(axis=0)
            look = style(number) | {"color": _shade(number / len(ranks))}
            ax.semilogy(range(1, rank + 1), mean, label=f"used at rank {rank}", **look)
        ax.set_title(name, fontsize="medium")
        _rank_axis(ax, ranks[-1], "singular value, from the largest")
    axes[0].set_ylabel("value (scaled delta)")
    _legend(figure, axes, "Mean over adapted layers and seeds")
    return figure


def _spectra_if_readable(run: Run, problems: list[Problem]) -> dict[int, np.ndarray]:
    try:
        return singular_values(run)
    except (SafetensorError, OSError, KeyError) as error:
        path = run.folder / ADAPTER
        problems.append(Problem(path, f"cannot be read ({error}); run again with force=true"))
        return {}


def singular_values(run: Run) -> dict[int, np.ndarray]:
    """Per rank b in 1, 2, 4, ..., r_max the singular values (layers, b) of every delta.

    A delta is B[:, :b] diag(w) A[:b], with the weights in use of the run's method. Empty if the
    run's folder holds no adapter (it is not in git).
    """
    path = run.folder / ADAPTER
    if not path.is_file() or not run.max_rank:
        return {}
    tensors = load_file(path)
    pairs = [
        (tensors[name.removesuffix("A") + "B"], tensors[name])
        for name in sorted(tensors)
        if name.endswith("lora_A")
    ]
    top, alpha = run.max_rank, run.option("method.alpha")
    found = {}
    for b in sorted({*(2**i for i in range(top.bit_length())), top}):
        weights = METHODS[run.method].weights(b, top, alpha)
        found[b] = np.stack([_product_spectrum(B[:, :b] * weights, A[:b]) for B, A in pairs])
    return found


def _product_spectrum(B: np.ndarray, A: np.ndarray) -> np.ndarray:
    """The b singular values of B A, from the small matrix between two QR factorizations."""
    left, right = np.linalg.qr(B).R, np.linalg.qr(A.T).R
    values = np.linalg.svd(left @ right.T, full_matrices=False, compute_uv=False)
    return np.pad(values, (0, len(A) - len(values)))  # a rank above the layer's width adds zeros


def _axes(title: str, number: int, sharey: bool = False) -> "tuple[Figure, list[Axes]]":
    """A figure with so many axes, in rows of ACROSS."""
    from matplotlib.figure import Figure

    columns = min(number, ACROSS)
    rows = -(-number // columns)
    figure = Figure(figsize=(1.2 + 3.2 * columns, 0.9 + 2.7 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=sharey).flatten()
    for unused in grid[number:]:
        unused.remove()
    figure.suptitle(title)
    return figure, list(grid[:number])


def _rank_axis(ax: "Axes", top: int, label: str) -> None:
    """Whole numbers from 1; powers of two on a logarithmic axis when there are many."""
    ax.set_xlabel(label)
    if top > WIDE:
        ax.set_xscale("log", base=2)
        ticks = [2**i for i in range(top.bit_length())]
    else:
        ticks = list(range(1, top + 1))
    ax.set_xticks(ticks, [str(tick) for tick in ticks])


def _legend(figure: "Figure", axes: "Sequence[Axes]", note: str) -> None:
    """One legend below all axes, and what the numbers are."""
    found: dict[str, Any] = {}
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    columns = 1 if len(axes) == 1 else min(len(found), ACROSS)
    figure.set_figheight(figure.get_figheight() + 0.17 * -(-len(found) // columns))
    figure.legend(
        found.values(), found.keys(), loc="outside lower center", ncols=columns, title=note
    )


def _shade(part: float) -> Any:
    """A color of cividis, dark to light, that is still seen on white."""
    import matplotlib as mpl

    return mpl.colormaps["cividis"](0.85 * part)


def _file_name(title: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", title)


def _save(figure: "Figure", stem: Path) -> list[Path]:
    """Write PNG and PDF, each whole or not at all; equal records give equal files."""
    written = []
    for ending, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
        path = stem.with_name(f"{stem.name}.{ending}")
        with whole_file(path) as unfinished:
            figure.savefig(unfinished, format=ending, dpi=200, metadata=metadata)
        written.append(path)
    return written
