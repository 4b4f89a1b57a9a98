"""Pre-training in a handful of steps: loads, resumes, leaves nothing half-written."""

import json
import lzma
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging

from dylora.errors import UserError
from dylora.pretraining import language_model, pretrain
from dylora.pretraining.language_model import Batches, check, new_model
from dylora.pretraining.loop import TrainingState, learning_rate
from dylora.pretraining.options import PretrainConfig, PretrainObjective
from dylora.pretraining.text import (
    encode,
    find_files,
    read_pieces,
    train_tokenizer,
)
from dylora.suite.signals import Interrupted
from dylora.tasks.toy import corpus

CONFIG = PretrainConfig(
    layers=1,
    hidden=16,
    heads=2,
    vocab=400,
    context=24,
    batch_size=4,
    learning_rate=1e-2,
    steps=6,
    eval_steps=3,
    eval_blocks=8,
)
MASKED = replace(CONFIG, objective=PretrainObjective.masked, mask=0.3)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three documents, 600 sentences."""
    documents = [" ".join(corpus("village", seed, 200)).replace(". ", ".\n") for seed in range(3)]
    path = tmp_path_factory.mktemp("text") / "village.txt"
    path.write_text("\n<|endoftext|>\n".join(documents), encoding="utf-8")
    return path


def make(config: PretrainConfig, text: Path, folder: Path, name: str = "model") -> Path:
    return pretrain.pretrain(config, str(text), folder / name, None, folder / "tokens")


@pytest.mark.parametrize("config", [CONFIG, MASKED], ids=["causal", "masked"])
def test_the_folder_loads_and_repeats_the_validation_loss(
    config: PretrainConfig, text: Path, tmp_path: Path
) -> None:
    folder = make(config, text, tmp_path)
    masked = config.objective == PretrainObjective.masked
    model = (AutoModelForMaskedLM if masked else AutoModelForCausalLM).from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    made = json.loads((folder / "pretrain.json").read_text())
    assert made["steps"] == 6 and made["tokens_seen"] == 6 * 4 * 24
    assert tokenizer.model_max_length == 24
    tokens = np.concatenate(list(encode(read_pieces([text]), tokenizer)))
    held_out = Batches(pretrain.split(tokens)[1], tokenizer, config)
    again = language_model.validation_loss(model, held_out)
    assert again == pytest.approx(made["validation"]["loss"], rel=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "tokens"]


def test_training_lowers_the_loss(text: Path, tmp_path: Path) -> None:
    made = make(replace(CONFIG, steps=40), text, tmp_path) / "pretrain.json"
    losses = [loss for _, _, loss in json.loads(made.read_text())["validation"]["history"]]
    assert losses[-1] < losses[0] - 0.5


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def stop_in_step(number: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ask the process to stop while that step is taken, once; the list gets the steps taken."""
    step, taken = TrainingState.step, []

    def stopping_step(state: TrainingState, *arguments: Any) -> float:
        if state.progress.step == number and number not in taken:
            os.kill(os.getpid(), signal.SIGTERM)
        taken.append(state.progress.step)
        return step(state, *arguments)

    monkeypatch.setattr(TrainingState, "step", stopping_step)
    return taken


def test_an_interrupted_training_goes_on_to_the_same_weights(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(CONFIG, dropout=0.1)  # whose generator must be continued too
    whole = weights(make(config, text, tmp_path, "whole"))
    taken = stop_in_step(2, monkeypatch)
    with pytest.raises(Interrupted, match="after step 3"):
        make(config, text, tmp_path, "stopped")
    assert not (tmp_path / "stopped").exists()
    stopped = weights(make(config, text, tmp_path, "stopped"))
    assert taken == [0, 1, 2, 3, 4, 5]  # nothing twice
    assert all(torch.equal(stopped[name], whole[name]) for name in whole)


def test_an_unfinished_training_of_another_model_is_not_continued(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in_step(2, monkeypatch)
    with pytest.raises(Interrupted):
        make(CONFIG, text, tmp_path)
    with pytest.raises(UserError, match=r"unfinished holds the unfinished training of another"):
        make(replace(CONFIG, layers=2), text, tmp_path)
    make(replace(CONFIG, steps=4), text, tmp_path)  # another length is the same training


def test_the_same_text_is_tokenized_once(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(CONFIG, text, tmp_path, "first")
    monkeypatch.setattr(pretrain, "encode", None)  # a call fails
    make(replace(CONFIG, layers=2), text, tmp_path, "second")


def test_compressed_text_and_byte_order_mark_make_no_difference(text: Path, tmp_path: Path) -> None:
    compressed = tmp_path / "village.txt.xz"
    compressed.write_bytes(lzma.compress(b"\xef\xbb\xbf" + text.read_bytes()))
    assert list(read_pieces([compressed])) == list(read_pieces([text]))


def test_pieces_hold_all_of_the_text_and_documents_end_apart(tmp_path: Path) -> None:
    first = "".join(f"line {n}\n" for n in range(20_000))
    path = tmp_path / "a.txt"
    path.write_text(f"{first}<|endoftext|>\nsecond\n")
    *pieces, separator, second, end = read_pieces([path])
    assert "".join(pieces) == first and len(pieces) > 1
    assert (separator, second, end) == ("<|endoftext|>", "second\n", "<|endoftext|>")


def test_the_end_token_stands_between_documents_and_nowhere_else(text: Path) -> None:
    tokenizer = train_tokenizer(read_pieces([text]), PretrainObjective.causal, 400, 24)
    tokens = np.concatenate(list(encode(read_pieces([text]), tokenizer)))
    assert tokens.dtype == np.uint16
    assert (tokens == tokenizer.eos_token_id).sum() == 3
    assert tokenizer.decode(tokens) == "".join(read_pieces([text]))


def test_a_masked_tokenizer_joins_pairs_as_roberta_does() -> None:
    tokenizer = train_tokenizer(corpus("village", 1, 50), PretrainObjective.masked, 400, 24)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("The fox.", "The hen.")["input_ids"])
    assert tokens[0] == "<s>" and tokens[-1] == "</s>"
    assert " ".join(tokens).count("</s> </s>") == 1
    first, second = " ".join(tokens).split(" </s> </s> ")
    assert first.split()[1] == second.split()[0]  # "The" has one token wherever it stands


def test_masks_follow_the_fractions_and_special_tokens_are_never_predicted(text: Path) -> None:
    tokenizer = train_tokenizer(read_pieces([text]), PretrainObjective.masked, 400, 24)
    tokens = np.concatenate(list(encode(read_pieces([text]), tokenizer)))
    inputs, labels = Batches(tokens, tokenizer, MASKED)(0, 2000)
    chosen = labels != language_model.MASKED_LABEL
    assert inputs.shape == labels.shape == (2000, 24)
    assert torch.all(inputs[:, 0] == 0) and torch.all(inputs[:, -1] == 2)
    assert not chosen[:, [0, -1]].any() and labels[chosen].min() >= 5
    assert chosen[:, 1:-1].float().mean().item() == pytest.approx(0.3, abs=0.01)
    hidden = (inputs[chosen] == tokenizer.mask_token_id).float().mean().item()
    left = (inputs[chosen] == labels[chosen]).float().mean().item()
    assert hidden == pytest.approx(0.8, abs=0.01) and left == pytest.approx(0.1, abs=0.01)
    assert not (inputs[~chosen] == tokenizer.mask_token_id).any()


def test_causal_labels_are_the_next_tokens(text: Path) -> None:
    tokenizer = train_tokenizer(read_pieces([text]), PretrainObjective.causal, 400, 24)
    inputs, labels = Batches(np.arange(300, dtype=np.uint16), tokenizer, CONFIG)(0, 4)
    assert torch.equal(labels, inputs + 1) and inputs.shape == (4, 24)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_generator_alone(text: Path) -> None:
    tokenizer = train_tokenizer(read_pieces([text]), PretrainObjective.causal, 400, 24)
    before = torch.get_rng_state()
    first, second = (new_model(CONFIG, tokenizer).state_dict() for _ in range(2))
    other = new_model(replace(CONFIG, seed=2), tokenizer).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
    assert torch.equal(before, torch.get_rng_state())


def test_the_learning_rate_warms_up_and_ends_at_a_tenth() -> None:
    config = replace(CONFIG, learning_rate=1.0, warmup=0.1)
    assert learning_rate(0.05, config) == pytest.approx(0.5)
    assert learning_rate(0.1, config) == pytest.approx(1.0)
    assert learning_rate(0.55, config) == pytest.approx(0.55)
    assert learning_rate(1.0, config) == pytest.approx(0.1)


def test_minutes_end_a_training_by_the_clock(text: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, steps=None, minutes=0.01)
    made = json.loads((make(config, text, tmp_path) / "pretrain.json").read_text())
    assert made["steps"] >= 1 and 0.6 <= made["seconds"] < 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "set minutes=40, steps=1000"),
        ({"heads": 3}, "hidden=16 must be a multiple of heads=3"),
        ({"vocab": 100_000}, "vocab=100000 must be from 300 to 65536"),
        ({"precision": "fp16"}, "fp16 needs a GPU"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    if message.startswith("fp16") and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=message):
        check(replace(CONFIG, **changes))


def test_text_that_cannot_be_used_is_named(text: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\*\.txt: no such file"):
        find_files(f"{text},{tmp_path}/nothing*.txt")
    (tmp_path / "a.pdf").touch()
    with pytest.raises(UserError, match=r"a\.pdf: must end in \.txt"):
        find_files(str(tmp_path / "a.pdf"))
    for name, content in (("latin.txt", "caf\xe9".encode("latin1")), ("cut.txt.xz", b"no xz")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            make(CONFIG, tmp_path / name, tmp_path)
    (tmp_path / "short.txt").write_text("Too short.")
    with pytest.raises(UserError, match="tokens fills no block of context=24"):
        make(CONFIG, tmp_path / "short.txt", tmp_path)
    assert not list(tmp_path.glob("model*"))


def test_a_finished_model_is_not_overwritten(text: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="is there already"):
        make(CONFIG, text, tmp_path)


@pytest.fixture
def small_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy models with two steps of training."""
    for name, toy in pretrain.TOY_MODELS.items():
        short = replace(toy.config, steps=2, eval_blocks=4, batch_size=4)
        monkeypatch.setitem(pretrain.TOY_MODELS, name, replace(toy, config=short, documents=600))


@pytest.mark.usefixtures("small_toys")
def test_a_toy_model_is_made_once_and_named_by_what_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [pretrain.toy_model(name, tmp_path) for name in pretrain.TOY_MODELS]
    assert AutoModelForMaskedLM.from_pretrained(folders[0]).config.hidden_size == 64
    assert AutoModelForCausalLM.from_pretrained(folders[1]).config.n_embd == 64
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "train_language_model", None)  # a call fails
        assert [pretrain.toy_model(name, tmp_path) for name in pretrain.TOY_MODELS] == folders
    toy = pretrain.TOY_MODELS["tiny_gpt2"]
    other = replace(toy, config=replace(toy.config, learning_rate=1e-3))
    monkeypatch.setitem(pretrain.TOY_MODELS, "tiny_gpt2", other)
    assert pretrain.toy_model("tiny_gpt2", tmp_path) not in folders


@pytest.mark.usefixtures("small_toys")
def test_a_killed_toy_training_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain.toy_model("tiny_gpt2", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small_toys")
def test_of_two_calls_at_once_one_wins_and_both_can_use_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, inner = pretrain._save, []

    def save_while_another_call_finishes(*arguments: Any) -> None:
        if not inner:
            inner.append(None)
            inner[0] = pretrain.toy_model("tiny_gpt2", tmp_path)
        save(*arguments)

    monkeypatch.setattr(pretrain, "_save", save_while_another_call_finishes)
    assert pretrain.toy_model("tiny_gpt2", tmp_path) == inner[0]
    assert list(tmp_path.iterdir()) == [inner[0]]


@pytest.mark.usefixtures("small_toys")
@pytest.mark.parametrize("file", ["model.safetensors", "pretrain.json", "checksums.json"])
def test_a_damaged_toy_model_is_named_and_made_anew(
    tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pretrain.toy_model("tiny_gpt2", tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / file).write_bytes((folder / file).read_bytes()[:-20])
    assert pretrain.toy_model("tiny_gpt2", tmp_path) == folder
    assert f"{file} is damaged: {folder.name} is made anew" in capsys.readouterr().out
    assert (folder / "model.safetensors").read_bytes() == whole


def test_an_unknown_toy_model_is_refused_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tiny_bert.*tiny_roberta, tiny_gpt2"):
        pretrain.toy_model("tiny_bert", tmp_path)


def script(*arguments: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[1]
    command = [sys.executable, "scripts/pretrain.py", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_script_makes_a_model_and_explains_a_typo(text: Path, tmp_path: Path) -> None:
    sizes = "layers=1 hidden=16 heads=2 vocab=400 context=24 batch_size=4 steps=4".split()  # noqa: SIM905
    made = script(f"text={text}", f"output={tmp_path}/model", f"validation={text}", *sizes)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "model" / "model.safetensors").exists()
    wrong = script("txt=a", "output=b")
    assert wrong.returncode == 2
    assert "there is no option txt; did you mean text?" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert "text= is missing" in script("output=b").stderr


@pytest.mark.slow
def test_tiny_roberta_learns_to_look_words_up_in_its_context(tmp_path: Path) -> None:
    """What the toy tasks stand on: far below 3.3, the loss of the words' frequencies alone."""
    made = json.loads((pretrain.toy_model("tiny_roberta", tmp_path) / "pretrain.json").read_text())
    assert made["validation"]["loss"] < 1.3
    assert made["seconds"] < 120
