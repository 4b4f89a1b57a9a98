"""The effect the paper is about, on toy tasks made here: offline, a few minutes on two cores.

LoRA is trained at max_rank and truncated, DyLoRA is trained once for all ranks; same data and
settings. Prints the scores of every rank side by side, and says whether the effect shows.

  dylora demo                    into results/demo/
  dylora demo seeds=1            of the classification task: a third of the time
"""

import os
import statistics
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from dylora.suite.cli import options, plain_errors
from dylora.suite.config import Config
from dylora.suite.records import Record, run_folder
from dylora.suite.validation import validate

ROOT = Path(__file__).parents[1]
METHODS = ("lora", "dylora")
CLEAR = 0.05  # of the score: a difference of drops that counts as the effect
SAMPLES = 3


@dataclass
class Options:
    """What to run and where."""

    seeds: int = 3  # of the classification task
    results: str = "results/demo"


def main() -> None:
    # The toy models gain nothing from more threads, and lose a lot where the cores are busy.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with plain_errors():
        chosen = options(Options, __doc__)
        ConfigStore.instance().store(name="schema", node=Config)
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            seeds = range(1, chosen.seeds + 1)
            print("Does a sentence entail another? Accuracy on 400 held-out pairs.\n")
            accuracy = {m: [run(m, "toy_pair", s, chosen)[0] for s in seeds] for m in METHODS}
            print_ranks(accuracy, "accuracy", scale=100)
            print_verdict(accuracy, "accuracy")
            print("\nAn inn's attributes into a sentence. BLEU on the test inputs.\n")
            texts = {method: run(method, "toy_e2e", 1, chosen) for method in METHODS}
            print_ranks({m: [record] for m, (record, _) in texts.items()}, "BLEU", scale=1)
            for method, (record, folder) in texts.items():
                print_samples(method, record, folder / "outputs")
            print(f"\nRecords: {chosen.results}/records")


def run(method: str, task: str, seed: int, chosen: Options) -> tuple[Record, Path]:
    """Train and score one run, or take what is there from an earlier demo."""
    from dylora.training import experiment  # torch is not needed for --help

    arguments = [f"task={task}", f"method={method}", f"seed={seed}"]
    config = OmegaConf.to_object(compose("config", [*arguments, f"paths.results={chosen.results}"]))
    assert isinstance(config, Config)
    validate(config)
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        record = experiment.run(config)
    seconds = sum(record["times"].values())
    print(f"  dylora run {' '.join(arguments)}: {seconds:.0f} s", flush=True)
    return record, run_folder(config)


def print_ranks(records: dict[str, list[Record]], metric: str, scale: float) -> None:
    """A row per rank, a column per method, mean ± standard deviation over the seeds."""
    print("\n  rank " + "".join(f"{name:>18}" for name in records))
    for rank in next(iter(records.values()))[0]["scores"]:
        cells = []
        for runs in records.values():
            values = [scale * record["scores"][rank][metric] for record in runs]
            spread = f" ± {statistics.stdev(values):4.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        print(f"  {rank:>4} " + "".join(f"{cell:>18}" for cell in cells))


def print_verdict(records: dict[str, list[Record]], metric: str) -> None:
    """What a truncation from max_rank to rank 1 costs either method, seed by seed."""
    drops = {}
    for method, runs in records.items():
        ranks = list(runs[0]["scores"])
        drops[method] = [
            run["scores"][ranks[-1]][metric] - run["scores"][ranks[0]][metric] for run in runs
        ]
    lora, dylora = (statistics.mean(drops[method]) for method in METHODS)
    shows = all(a - b > CLEAR for a, b in zip(drops["lora"], drops["dylora"], strict=True))
    print(
        f"\n  From the highest rank to rank 1 LoRA loses {100 * lora:.1f} points, DyLoRA "
        f"{100 * dylora:.1f} (mean of {len(drops['lora'])} seeds)."
    )
    seeds = f"by more than {100 * CLEAR:.0f} points with every seed"
    print(
        f"  The effect shows: LoRA's loss is greater {seeds}."
        if shows
        else f"  The effect is ABSENT here: LoRA's loss is not greater {seeds}."
    )


def print_samples(method: str, record: Record, outputs: Path) -> None:
    """The same test inputs at the lowest and the highest rank."""
    ranks = list(record["scores"])
    texts = {r: (outputs / f"test.rank{r}.txt").read_text().splitlines() for r in ranks}
    print(f"\n  {method}, the first {SAMPLES} test inputs at ranks {ranks[0]} and {ranks[-1]}:")
    for number in range(SAMPLES):
        for rank in (ranks[0], ranks[-1]):
            print(f"    rank {rank}: {texts[rank][number]}")


if __name__ == "__main__":
    main()
