"""Plain text to tokens: reading documents, training a byte-level BPE tokenizer, encoding."""

import hashlib
import lzma
from collections.abc import Iterable, Iterator
from glob import glob
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from dylora.errors import UserError
from dylora.pretraining.options import PretrainObjective

SEPARATOR = "<|endoftext|>"  # a line of its own between two documents of a file
PIECE = 1 << 16  # characters that are tokenized at a time
Tokens = np.ndarray  # (length,) uint16, documents joined by the end token


def find_files(patterns: str) -> list[Path]:
    """The files that comma-separated names or glob patterns match, sorted, each once.

    Raises UserError naming the pattern that matches none, or a file that is no .txt or .txt.xz.
    """
    found: set[str] = set()
    for pattern in patterns.split(","):
        matched = [name for name in glob(pattern, recursive=True) if Path(name).is_file()]  # noqa: PTH207
        if not matched:
            raise UserError(f"{pattern}: no such file; text= takes names or patterns like '*.txt'")
        found.update(matched)
    for name in found:
        if not name.endswith((".txt", ".txt.xz")):
            raise UserError(f"{name}: must end in .txt or .txt.xz")
    return [Path(name) for name in sorted(found)]


def read_pieces(files: Iterable[Path]) -> Iterator[str]:
    """The text of the files in pieces that end at a line's end; SEPARATOR alone ends a document.

    A file's end does too. Raises UserError naming a file that is damaged or not UTF-8.
    """
    for path in files:
        opened = lzma.open if path.suffix == ".xz" else open
        lines: list[str] = []
        size = 0
        try:
            with opened(path, "rt", encoding="utf-8-sig") as file:
                for line in file:
                    if line.strip() == SEPARATOR:
                        yield "".join(lines)
                        yield SEPARATOR
                        lines, size = [], 0
                        continue
                    lines.append(line)
                    size += len(line)
                    if size >= PIECE:
                        yield "".join(lines)
                        lines, size = [], 0
        except (UnicodeDecodeError, lzma.LZMAError, EOFError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        yield "".join(lines)
        yield SEPARATOR


def digest(pieces: Iterable[str], *settings: object) -> str:
    """sha256 of the text and of what else decides about the result."""
    total = hashlib.sha256(repr(settings).encode())
    for piece in pieces:
        total.update(piece.encode() + b"\0")
    return total.hexdigest()


def train_tokenizer(
    pieces: Iterable[str], objective: PretrainObjective, vocab: int, context: int
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocab` tokens, with the objective's special tokens.

    Masked: RoBERTa's `<s> A </s></s> B </s>`, and a word has one token wherever it stands. Causal:
    GPT-2's, where `<|endoftext|>` begins and ends a text.
    """
    masked = objective == PretrainObjective.masked
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if masked else [SEPARATOR]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=masked)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator((piece for piece in pieces if piece != SEPARATOR), trainer)
    names = {"bos_token": SEPARATOR, "eos_token": SEPARATOR, "unk_token": SEPARATOR}
    if masked:
        core.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
        names |= {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=context, **names)


def encode(pieces: Iterable[str], tokenizer: PreTrainedTokenizerFast) -> Iterator[Tokens]:
    """The tokens of the text, some pieces at a time, with the end token after each document."""
    core, end = tokenizer.backend_tokenizer, [tokenizer.eos_token_id]
    rest = iter(pieces)
    while group := list(islice(rest, 256)):
        encodings = core.encode_batch(group, add_special_tokens=False)
        for piece, encoding in zip(group, encodings, strict=True):
            yield np.array(end if piece == SEPARATOR else encoding.ids, dtype=np.uint16)
