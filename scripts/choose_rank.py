"""The rank to deploy: the smallest that is within a tolerance of the best rank's score.

  dylora choose-rank results/records/NAME tolerance=0.5
  dylora choose-rank results/records/NAME metric=f1
  dylora choose-rank results/records/mrpc-minilm-dylora-r8-s*      the mean of several seeds

Scores are those of the record, so a rank is chosen on the data that it is scored on; the tolerance
is in the metric's points (percent; NIST and CIDEr have their own scale). With several seeds it says
which rank each of them would choose alone.
"""

from dataclasses import dataclass, field

from dylora.errors import UserError
from dylora.results.deploy import FLOAT32, adapter_size, choose_over_seeds, named_run
from dylora.suite.cli import options, plain_errors


@dataclass
class Options:
    runs: list[str] = field(default_factory=list)  # folders; may be given without "runs="
    tolerance: float = 0.5  # points that the score may be below the best rank's
    metric: str | None = None  # null: the task's own


def main() -> None:
    """Print the choice and all ranks. Raises UserError for a run or option that does not fit."""
    chosen = options(Options, __doc__, first="runs")
    if not chosen.runs:
        raise UserError("name a run, such as results/records/NAME; --help says more")
    runs = [named_run(path) for path in chosen.runs]
    choice, alone = choose_over_seeds(runs, chosen.tolerance, chosen.metric)
    run = runs[0]
    size = adapter_size(run, choice.rank)
    print(
        f"rank {choice.rank}: the smallest within {choice.tolerance:g} points of the best "
        f"{choice.metric}; {size} parameters, {size * FLOAT32} bytes in float32"
    )
    print(f"{certainty(choice.rank, alone)}\n")
    width = max(9, len(choice.metric))
    print(f"rank  {choice.metric:>{width}}  parameters      bytes")
    for rank, score in choice.scores.items():
        size = adapter_size(run, rank)
        mark = "  <- deploy" if rank == choice.rank else ""
        print(f"{rank:>4}  {score:>{width}.2f}  {size:>10}  {size * FLOAT32:>9}{mark}")


def certainty(rank: int, alone: list[int]) -> str:
    """How far the seeds agree on the choice."""
    if len(alone) == 1:
        return "one seed: another may choose another rank; give the runs of several"
    agree = sum(each == rank for each in alone)
    each = ", ".join(map(str, alone))
    return f"mean of {len(alone)} seeds; {agree} of them choose this rank alone (each: {each})"


if __name__ == "__main__":
    with plain_errors():
        main()
