"""A figure per claim: our difference with its interval, and the published one beside it."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from dylora.results.drawing import COLORS, RC, axes_of, file_name, save
from dylora.results.layout import ClaimsLayout, Measure
from dylora.results.loading import Material
from dylora.results.tables.claims import Evidence, apart, evidence
from dylora.results.tables.selection import parts_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_claim_figures(material: Material, folder: Path) -> tuple[list[Path], list[str]]:
    """Draw each claim that has runs, for each model and protocol; the files, and what has none."""
    import matplotlib as mpl

    files: list[Path] = []
    not_drawn: list[str] = []
    for experiment in material.experiments:
        layout = experiment.layout
        if not isinstance(layout, ClaimsLayout):
            continue
        for part in parts_of(material.runs, layout):
            if part.limits or not part.runs:
                continue  # trials decide nothing
            for number, claim in enumerate(layout.claims, start=1):
                found = evidence(layout, claim, part, material.published)
                name = f"{experiment.name} {number}, {part.name}"
                if not any(each.runs for each in found):
                    not_drawn.append(f"{name} ({claim.text}): no runs on it")
                    continue
                with mpl.rc_context(RC):
                    figure = claim_figure(found, part.name)
                    files += save(figure, folder / file_name(name))
    return files, not_drawn


def claim_figure(found: list[Evidence], where: str) -> "Figure":
    """A line for each task: our difference and its interval, the published one as a square."""
    claim, bound = found[0].claim, found[0].bound
    figure, (ax,) = axes_of("\n".join(textwrap.wrap(claim.text, 48)), 1)
    for row, each in enumerate(found):
        if each.published is not None:
            ax.plot([apart(claim, each.published)], [row], "s", mfc="none", color="#666666")
        if each.difference is not None:
            ax.plot([each.difference], [row], "o", color=COLORS[0])
        if each.interval is not None:
            ax.plot(each.interval, [row, row], color=COLORS[0])
        ax.annotate(each.verdict, (1.03, row), xycoords=("axes fraction", "data"), va="center")
    ax.axvline(bound, color="#888888", linestyle=":")
    ax.set_yticks(range(len(found)), [each.on for each in found])
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set_xlabel("times as long" if claim.measure == Measure.time else "difference in points")
    figure.supxlabel(
        f"{where}. Dot: ours, with its 95% interval; square: published; needed: right of the "
        "dotted line",
        fontsize="small",
        wrap=True,
    )
    return figure
