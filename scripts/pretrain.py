"""Pretrain a small language model on plain text, for a backbone where none can be had.

python scripts/pretrain.py text='books/*.txt.xz' output=models/gpt2_books minutes=40

  text=        .txt or .txt.xz files: names or patterns with commas between, in quotes; a line
               `<|endoftext|>` stands between two documents of a file
  output=      the folder to make; model.name_or_path= takes it afterwards
  validation=  text to measure the loss on; without it the last hundredth of the text
  minutes=     of training, or steps=; stopped earlier, the same command goes on where it was
  cache=       where the tokens are kept, by default beside the output
  objective=   causal (GPT-2) or masked (RoBERTa)

The defaults of the other options are what gave the lowest loss in 40 minutes on two CPU cores.
"""

from dataclasses import dataclass, fields
from pathlib import Path

from omegaconf import MISSING, OmegaConf

from dylora.cli import options, plain_errors
from dylora.errors import UserError
from dylora.language_model import PretrainConfig


@dataclass
class Options(PretrainConfig):
    """All options of the command line."""

    text: str = MISSING
    output: str = MISSING
    validation: str | None = None
    cache: str | None = None


def main() -> None:
    """Read the options, pretrain, say where the model is."""
    given = options(Options, __doc__)
    missing = [name for name in ("text", "output") if OmegaConf.is_missing(given, name)]
    if missing:
        raise UserError(f"{missing[0]}= is missing; --help shows an example")
    from dylora.pretrain import pretrain  # imports torch, which a wrong option need not wait for

    output = Path(given.output)
    cache = Path(given.cache) if given.cache else output.parent / ".tokens"
    config = PretrainConfig(**{f.name: getattr(given, f.name) for f in fields(PretrainConfig)})
    print(f"made {pretrain(config, given.text, output, given.validation, cache)}")


if __name__ == "__main__":
    with plain_errors():
        main()
