"""The rank to deploy: the smallest that is within a tolerance of the best.

  dylora choose-rank results/records/NAME tolerance=0.5
  dylora choose-rank results/records/NAME metric=f1

Scores are those of the record, so a rank is chosen on the data that it is scored on; the tolerance
is in the metric's points (percent; NIST and CIDEr have their own scale).
"""

from dataclasses import dataclass

from dylora.results.deploy import FLOAT32, adapter_size, choose_rank, named_run
from dylora.suite.cli import options, plain_errors


@dataclass
class Options:
    record: str | None = None  # a run's folder or its record.json; may be given without "record="
    tolerance: float = 0.5
    metric: str | None = None  # null: the task's own


def main() -> None:
    """Print the choice and all ranks. Raises UserError for a run or option that does not fit."""
    chosen = options(Options, __doc__, first="record")
    run = named_run(chosen.record)
    choice = choose_rank(run, chosen.tolerance, chosen.metric)
    size = adapter_size(run, choice.rank)
    print(
        f"rank {choice.rank}: the smallest within {choice.tolerance:g} points of the best "
        f"{choice.metric}; {size} parameters, {size * FLOAT32} bytes in float32\n"
    )
    width = max(9, len(choice.metric))
    print(f"rank  {choice.metric:>{width}}  parameters      bytes")
    for rank, score in choice.scores.items():
        size = adapter_size(run, rank)
        mark = "  <- deploy" if rank == choice.rank else ""
        print(f"{rank:>4}  {score:>{width}.2f}  {size:>10}  {size * FLOAT32:>9}{mark}")


if __name__ == "__main__":
    with plain_errors():
        main()
