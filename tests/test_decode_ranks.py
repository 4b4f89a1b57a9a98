"""Decoding into files: resuming after a kill, every rank, and mistakes."""

import io
import json
from pathlib import Path

import pytest
import torch
from decoders import SOURCES, TOKENIZER, byte_tokenizer, decoder, prompts_of
from tiny import randomize
from tqdm import tqdm
from transformers import PreTrainedModel

import dylora
from dylora.errors import UserError
from dylora.suite.config import DecodeConfig
from dylora.training import decode as decoding
from dylora.training.decode import beam_search, decode, decode_ranks

DISTINCT = 6  # sources of which two are equal
SETTINGS = DecodeConfig(beams=3, max_new_tokens=8, token_budget=200)


class Spy:
    """Stands in for `beam_search`, counts the prompts it was given, may stop after some calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> None:
        self.batches: list[int] = []
        self.stop_after = stop_after
        monkeypatch.setattr(decoding, "beam_search", self)

    def __call__(self, model: PreTrainedModel, tokenizer: object, prompts: list, *rest: object):
        if len(self.batches) == self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(len(prompts))
        return beam_search(model, TOKENIZER, prompts, SETTINGS)


def test_one_line_per_source_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal sources are decoded once; batches stay within the budget."""
    model, spy = decoder(), Spy(monkeypatch)
    output = tmp_path / "test.txt"
    with tqdm(total=DISTINCT, file=io.StringIO()) as progress:
        texts = decode(model, TOKENIZER, SOURCES, SETTINGS, output, progress)
        assert progress.n == DISTINCT
    assert sum(spy.batches) == DISTINCT and len(spy.batches) > 1
    assert output.read_text("utf-8").split("\n") == [*texts, ""]
    alone = [beam_search(model, TOKENIZER, [p], SETTINGS)[0] for p in prompts_of()]
    assert texts == alone


@pytest.mark.parametrize("torn", ["", '{"input": 2, "te'])
def test_a_killed_run_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torn: str) -> None:
    """Only what is left is decoded, and the file equals that of an uninterrupted run."""
    model = decoder()
    whole = decode(model, TOKENIZER, SOURCES, SETTINGS, tmp_path / "whole.txt")
    first, output = Spy(monkeypatch, stop_after=2), tmp_path / "test.txt"
    with pytest.raises(KeyboardInterrupt):
        decode(model, TOKENIZER, SOURCES, SETTINGS, output)
    assert not output.exists()
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write(torn)  # what a kill in the middle of a write leaves
    second = Spy(monkeypatch)
    with tqdm(total=DISTINCT, file=io.StringIO()) as progress:
        assert decode(model, TOKENIZER, SOURCES, SETTINGS, output, progress) == whole
        assert progress.n == DISTINCT
    assert sum(first.batches) + sum(second.batches) == DISTINCT
    assert output.read_bytes() == (tmp_path / "whole.txt").read_bytes()
    third = Spy(monkeypatch)
    assert decode(model, TOKENIZER, SOURCES, SETTINGS, output) == whole
    assert third.batches == [], "a finished file is taken as it is"


@pytest.mark.parametrize("change", ["sources", "settings", "weights"])
def test_texts_of_something_else_are_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    model, output = decoder(), tmp_path / "test.txt"
    decode(model, TOKENIZER, SOURCES, SETTINGS, output)
    sources = [*SOURCES[:-1], "other"] if change == "sources" else SOURCES
    settings = DecodeConfig(**{**vars(SETTINGS), "length_penalty": 0.5})
    settings = settings if change == "settings" else SETTINGS
    spy = Spy(monkeypatch, stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        decode(model, TOKENIZER, sources, settings, output, weights=change)
    assert len(spy.batches) == 1
    assert not output.exists(), "the old texts must not look like the new ones"


def test_a_smaller_budget_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a lack of memory one goes on with smaller batches, keeping what is done."""
    model, output = decoder(), tmp_path / "test.txt"
    whole = decode(model, TOKENIZER, SOURCES, SETTINGS, tmp_path / "whole.txt")
    Spy(monkeypatch, stop_after=1)
    with pytest.raises(KeyboardInterrupt):
        decode(model, TOKENIZER, SOURCES, SETTINGS, output)
    done = len((tmp_path / "test.jsonl").read_text().splitlines()) - 1
    spy = Spy(monkeypatch)
    smaller = DecodeConfig(**{**vars(SETTINGS), "token_budget": 1})
    assert decode(model, TOKENIZER, SOURCES, smaller, output) == whole
    assert spy.batches == [1] * (DISTINCT - done)


def test_log_is_one_json_line_per_input(tmp_path: Path) -> None:
    decode(decoder(), TOKENIZER, SOURCES, SETTINGS, tmp_path / "test.txt")
    header, *lines = map(json.loads, (tmp_path / "test.jsonl").read_text().splitlines())
    assert list(header) == ["key"]
    assert sorted(line["input"] for line in lines) == list(range(DISTINCT))


# Every rank


def adapted(family: str = "gpt2") -> PreTrainedModel:
    model = decoder(family)
    targets = ["c_attn:q,v"] if family == "gpt2" else ["q_proj", "v_proj"]
    dylora.adapt(model, targets, max_rank=3, alpha=8, head=[])
    randomize(model)
    return model.double()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_rank_gives_what_its_adapter_path_gives(tmp_path: Path, family: str) -> None:
    """Decoding merged weights equals decoding with the adapter running beside the backbone."""
    model = adapted(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    outputs = decode_ranks(model, TOKENIZER, SOURCES, SETTINGS, tmp_path, [1, 3], split="val")
    for rank in (1, 3):
        with dylora.at_rank(model, rank):
            unmerged = beam_search(model, TOKENIZER, prompts_of(), SETTINGS)
        assert outputs[rank] == unmerged
        assert (tmp_path / f"val.rank{rank}.txt").read_text().split("\n")[:-1] == unmerged
    assert outputs[1] != outputs[3]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_ranks_continue_where_a_kill_left_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = adapted()

    def run(folder: Path) -> dict[int | None, list[str]]:
        return decode_ranks(model, TOKENIZER, SOURCES, SETTINGS, folder, [1, 2, 3])

    complete = Spy(monkeypatch)
    whole = run(tmp_path / "whole")
    per_rank = len(complete.batches) // 3
    stopped = Spy(monkeypatch, stop_after=per_rank + 1)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "part")
    assert sorted(p.name for p in (tmp_path / "part").glob("*.txt")) == ["test.rank1.txt"]
    rest = Spy(monkeypatch)
    assert run(tmp_path / "part") == whole
    assert len(stopped.batches) + len(rest.batches) == 3 * per_rank


def test_another_adapter_in_the_same_folder_is_decoded_anew(tmp_path: Path) -> None:
    model = adapted()
    first = decode_ranks(model, TOKENIZER, SOURCES, SETTINGS, tmp_path, [2])
    randomize(model, seed=1)
    second = decode_ranks(model, TOKENIZER, SOURCES, SETTINGS, tmp_path, [2])
    assert first != second


def test_model_without_adapters(tmp_path: Path) -> None:
    outputs = decode_ranks(decoder(), TOKENIZER, SOURCES, SETTINGS, tmp_path, [None])
    assert (tmp_path / "test.rank0.txt").read_text().split("\n")[:-1] == outputs[None]


# Mistakes


def test_bad_rank_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="rank 4"):
        decode_ranks(adapted(), TOKENIZER, SOURCES, SETTINGS, tmp_path, [1, 4])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (90, r"input 2 has 91 tokens; .*max_new_tokens=8.* context of 96.*max_new_tokens=5"),
        (200, r"input 2 has 201 tokens.*context is 96"),
    ],
)
def test_prompt_longer_than_the_context(tmp_path: Path, length: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        decode(decoder(), TOKENIZER, ["a", "b" * length], SETTINGS, tmp_path / "test.txt")
    assert list(tmp_path.iterdir()) == []


def test_prompt_that_just_fits(tmp_path: Path) -> None:
    decode(decoder(), TOKENIZER, ["b" * 87], SETTINGS, tmp_path / "test.txt")


def test_model_without_end_token(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='"eos_token"'):
        decode(decoder(), byte_tokenizer(end=None), SOURCES, SETTINGS, tmp_path / "test.txt")
