"""Order the components of a trained LoRA by singular values, without training.

  dylora sort results/records/NAME output=sorted.safetensors
  dylora sort PEFT_FOLDER output=sorted.safetensors
  dylora sort roberta_base_lora_mnli.bin alpha=16 output=sorted.safetensors

Prints the part of the energy (sum of squared singular values) that each rank keeps, and writes an
adapter that gives the same outputs at its full rank and can be used and exported at any rank.
`alpha` is only for files that do not say theirs, which are loralib's.
"""

from dataclasses import dataclass
from statistics import fmean

from dylora.errors import UserError
from dylora.suite.cli import options, plain_errors


@dataclass
class Options:
    source: str | None = None  # a run, an adapter file or a PEFT folder; "source=" may be left out
    alpha: float | None = None  # that the source was trained with, if it does not say so
    output: str = "sorted.safetensors"


def main() -> None:
    """Write the sorted adapter, print its spectrum. Raises UserError where there is no adapter."""
    chosen = options(Options, __doc__, first="source")
    if chosen.source is None:
        raise UserError("name an adapter: a run's folder, a PEFT folder or a file; see --help")
    from dylora.svd import sort_by_svd  # torch, only once the options make sense

    spectrum = sort_by_svd(chosen.source, chosen.output, chosen.alpha)
    layers = [spectrum.kept_of(layer) for layer in spectrum.values]
    print(f"energy kept in {len(layers)} layers, percent\n")
    print("rank     all   least    mean    most")
    for number, kept in enumerate(spectrum.kept):
        at_rank = [layer[number] for layer in layers]
        cells = (kept, min(at_rank), fmean(at_rank), max(at_rank))
        print(f"{number + 1:>4}" + "".join(f"{100 * cell:8.1f}" for cell in cells))
    print(f"\nwritten: {chosen.output}")


if __name__ == "__main__":
    with plain_errors():
        main()
