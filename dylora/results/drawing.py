"""The look of all figures: colors, lines, axes, labels, files.

Colors are Okabe and Ito's, which color-blind readers can tell apart; every series has a line
style and a marker of its own too, for print without colors.
"""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dylora.files import whole_file

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
LABEL: dict[str, Any] = {
    "xycoords": ("axes fraction", "data"),
    "annotation_clip": False,
    "va": "center",
    "fontsize": "small",
}
BASELINE = LABEL | {"va": "bottom", "color": "#666666"}
UNDATED: dict[str, dict[str, None]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
LABEL_ROOM = 0.11  # of an axis's height, for a label of two lines


def style(number: int) -> dict[str, Any]:
    """Color, line style and marker of a series; repeats after seven, with another marker."""
    turn = number // len(COLORS)
    return {
        "color": COLORS[number % len(COLORS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[(number + turn) % len(MARKERS)],
    }


def label_ends(ax: "Axes") -> None:
    """The name of each line at its right end, apart from each other, instead of a legend."""
    named = [line for line in ax.lines if not str(line.get_label()).startswith("_")]
    ends = {line: float(np.asarray(line.get_ydata())[-1]) for line in named}
    low, high = ax.get_ylim()
    room = LABEL_ROOM * (high - low)
    place = high + room
    for left, line in zip(
        range(len(ends))[::-1], sorted(ends, key=lambda x: -ends[x]), strict=True
    ):
        # Below the one before, and no lower than the ones to come need.
        place = max(min(ends[line], place - room), low + left * room)
        words = str(line.get_label()).replace(" seed", "\N{NO-BREAK SPACE}seed")
        ax.annotate(textwrap.fill(words, 32), (1.03, place), color=line.get_color(), **LABEL)


def axes_of(title: str, number: int, sharey: bool = False) -> "tuple[Figure, list[Axes]]":
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


def rank_axis(ax: "Axes", top: int, label: str) -> None:
    """Whole numbers from 1; powers of two on a logarithmic axis when there are many."""
    ax.set_xlabel(label)
    if top > WIDE:
        ax.set_xscale("log", base=2)
        ticks = [2**i for i in range(top.bit_length())]
    else:
        ticks = list(range(1, top + 1))
    ax.set_xticks(ticks, [str(tick) for tick in ticks])


def legend(figure: "Figure", axes: "Sequence[Axes]", note: str) -> None:
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


def shade(part: float) -> Any:
    """A color of cividis, dark to light, that is still seen on white."""
    import matplotlib as mpl

    return mpl.colormaps["cividis"](0.85 * part)


def save(figure: "Figure", stem: Path, endings: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write PNG and PDF, each whole or not at all; equal records give equal files."""
    written = []
    for ending in endings:
        path = stem.with_name(f"{stem.name}.{ending}")
        with whole_file(path) as unfinished:
            figure.savefig(unfinished, format=ending, dpi=200, metadata=UNDATED[ending])
        written.append(path)
    return written


def file_name(title: str) -> str:
    return re.sub(r"[^\w.=-]+", "_", title)
