"""Pretrain a small language model on plain text, for a backbone where none can be had.

dylora pretrain text='books/*.txt.xz' output=models/gpt2_books minutes=40

  text=        .txt or .txt.xz files: names or patterns with commas between, in quotes; a line
               `<|endoftext|>` stands between two documents of a file
  output=      the folder to make; model.name_or_path= takes it afterwards
  validation=  text to measure the loss on; without it the last hundredth of the text
  minutes=     of training, or steps=; stopped earlier, the same command goes on where it was
  cache=       where the tokens are kept, by default beside the output
  objective=   causal (GPT-2) or masked (RoBERTa)

The defaults suit an hour or less on two CPU cores; precision=bf16 is several times as fast on a CPU
that has it (avx512_bf16, amx_bf16).
"""

from contextlib import suppress
from ctypes import CDLL
from dataclasses import dataclass, fields
from pathlib import Path

from dylora.errors import UserError
from dylora.pretraining.options import PretrainConfig
from dylora.suite.cli import options, plain_errors


@dataclass
class Options(PretrainConfig):
    """All options of the command line."""

    text: str = ""
    output: str = ""
    validation: str | None = None
    cache: str | None = None


def keep_freed_memory() -> None:
    """Let glibc reuse large arrays: else every step maps and clears them anew, 1/3 of its time."""
    with suppress(OSError, AttributeError):
        libc = CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def main() -> None:
    """Read the options, pretrain, say where the model is."""
    given = options(Options, __doc__)
    for name in ("text", "output"):
        if not getattr(given, name):
            raise UserError(f"{name}= is missing; --help shows an example")
    from dylora.pretraining.pretrain import (
        pretrain,  # imports torch, for which --help need not wait
    )

    keep_freed_memory()
    output = Path(given.output)
    cache = Path(given.cache) if given.cache else output.parent / ".tokens"
    config = PretrainConfig(**{f.name: getattr(given, f.name) for f in fields(PretrainConfig)})
    print(f"made {pretrain(config, given.text, output, given.validation, cache)}")


if __name__ == "__main__":
    with plain_errors():
        main()
