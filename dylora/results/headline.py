"""The README's first screen: three sentences and a figure, both from the records. No torch here."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dylora.errors import UserError
from dylora.files import write_text
from dylora.methods import METHODS
from dylora.results.drawing import RC, axes_of, legend, rank_axis, save, style
from dylora.results.standing import Answer, Standing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEGIN, END = "<!-- results: `make report-md` writes this block -->", "<!-- end of results -->"
FIGURE = Path("docs/figures/any_rank")  # beside the README; as PNG
DYLORA, CUT, SORTED = "DyLoRA", "LoRA, cut as it is", "LoRA, sorted by SVD"
NO_ANSWER = "No task has both methods at every rank yet."


def write_headline(readme: Path, found: Answer | None, texts: Answer | None) -> list[Path]:
    """Fill the block between the marks and draw its figure; the written files.

    `found` is of the experiment any_rank, `texts` of any_rank_texts.

    Raises UserError without the file or its marks, or without matplotlib.
    """
    if not readme.is_file():
        raise UserError(f"readme={readme}: there is no such file")
    before, begin, rest = readme.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"{readme}: has no block between {BEGIN} and {END}")
    block, written = NO_ANSWER, []
    if found is not None and {DYLORA, CUT, SORTED} <= {arm.name for arm in found.arms}:
        answers = [found] if texts is None else [found, texts]
        written = save(headline_figure(answers), readme.parent / FIGURE, ("png",))
        block = f"![Score against rank]({FIGURE.as_posix()}.png)\n\n{sentences(found)}"
        if texts is not None:
            block += f"\n{text_sentence(texts)}"
    return [*written, write_text(readme, f"{before}{BEGIN}\n{block}\n{END}{after}")]


def sentences(found: Answer) -> str:
    """DyLoRA, a LoRA cut or sorted, and the best arms, beside a LoRA trained at each rank."""
    arms = {arm.name: arm for arm in found.arms}
    ranks = _listed([str(rank) for rank in found.bar.curve])
    best, steady = found.arms[0], found.steadiest
    unsure = ": with fewer than three seeds a hint and no result" if found.few else ""
    return (
        f"One DyLoRA, used at ranks {ranks}, scores {_gap(found, arms[DYLORA])} LoRAs trained at "
        f"each of these ranks ({found.model}, mean over {_listed(found.tasks)}, {found.seeds}).\n"
        f"One LoRA that is cut to these ranks scores {_gap(found, arms[CUT])} them, and "
        f"{_gap(found, arms[SORTED])} them if it is sorted by SVD first, which trains nothing.\n"
        f"The best single adapter on average is that of *{best.name}*, {_gap(found, best)} them; "
        f"the steadiest that of *{steady.name}*, on no task and at no rank more than "
        f"{-steady.worst.gap:.1f} points behind them{unsure}."
    )


def text_sentence(found: Answer) -> str:
    """The arms at the lowest rank, where generated texts tell methods apart, best first."""
    low = min(found.bar.curve)
    shown = sorted(_shown(found), key=lambda arm: -arm.low)
    scores = ", ".join(f"*{arm.name}* {arm.low:.1f}" for arm in shown)
    return (
        f"Texts tell methods apart: at rank {low} ({found.tasks[0]}) a LoRA trained at that rank "
        f"scores {found.bar.low:.1f}, {scores} ({found.model}, {found.seeds})."
    )


def headline_figure(answers: Sequence[Answer]) -> "Figure":
    """Score against rank, a panel for each answer, with a color for each method."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install 'dylora[report]'") from error
    names = sorted({arm.name for found in answers for arm in _shown(found)})
    with mpl.rc_context(RC):
        figure, axes = axes_of("One adapter for every rank", len(answers))
        for ax, found in zip(axes, answers, strict=True):
            for arm in [found.bar, *sorted(_shown(found), key=lambda arm: arm.name)]:
                number = 0 if arm is found.bar else 1 + names.index(arm.name)
                ax.plot(list(arm.curve), list(arm.curve.values()), label=arm.name, **style(number))
            rank_axis(ax, max(found.bar.curve), "rank")
            several = len(found.tasks) > 1
            ax.set_ylabel(f"mean score over {len(found.tasks)} tasks" if several else "score")
            ax.set_title(
                f"{', '.join(found.tasks)}\n{found.model}, {found.seeds}", fontsize="small"
            )
        legend(figure, axes, "")
    return figure


def _shown(found: Answer) -> list[Standing]:
    """LoRA cut and sorted, and each other method as it is."""
    return [arm for arm in found.arms if arm.name in (CUT, SORTED) or _is_rival(arm)]


def _is_rival(arm: Standing) -> bool:
    """A method that was trained for every rank, with its ranks as they were trained."""
    method = METHODS[arm.arm.match["method.name"]]
    return method.trains_every_rank and arm.arm.truncation is None


def _gap(found: Answer, arm: Standing) -> str:
    gap = arm.mean - found.bar.mean
    return f"{abs(gap):.1f} points {'above' if gap > 0 else 'below'}"


def _listed(words: list[str]) -> str:
    return " and ".join(", ".join(words).rsplit(", ", 1))
