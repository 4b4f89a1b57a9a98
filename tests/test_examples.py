"""The examples run as they are, on tiny models, and the documentation shows their code."""

import re
import runpy
import sys
from pathlib import Path
from textwrap import indent

import pytest
import torch
from conftest import ROOT
from peft import PeftModel
from tiny import save_roberta
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)

import dylora
from dylora.adapted import low_rank_parts
from dylora.adapter import adapter_state
from dylora.pretraining.options import PretrainObjective
from dylora.pretraining.pretrain import one_thread
from dylora.pretraining.text import train_tokenizer
from dylora.tasks.toy import corpus

EXAMPLES = ROOT / "examples"
RANK = re.compile(r"^rank (\d+):", re.MULTILINE)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The optimizer steps that an example has drawn a rank for."""
    steps: list[int] = []
    draw = dylora.RankSampler.__call__

    def spy(self: dylora.RankSampler, step: int) -> int:
        steps.append(step)
        return draw(self, step)

    monkeypatch.setattr(dylora.RankSampler, "__call__", spy)
    return steps


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(EXAMPLES))
    from reviews import reviews

    sys.path.remove(str(EXAMPLES))
    return save_roberta(tmp_path_factory.mktemp("models") / "roberta", reviews()[0])


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    tokenizer = train_tokenizer(list(corpus("inns", 1, 50)), PretrainObjective.causal, 300, 256)
    tokenizer.save_pretrained(folder)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=16, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def run(name: str, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *options])
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with one_thread():
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")


@pytest.mark.parametrize(
    ("name", "micro_batches", "ranks"),
    [
        ("plain_pytorch.py", 1, "12345678"),
        ("accelerate_loop.py", 2, "12345678"),
        ("hf_trainer.py", 1, "1248"),
    ],
)
def test_an_encoder_example_trains_and_prints_the_score_of_each_rank(
    name: str,
    micro_batches: int,
    ranks: str,
    encoder: Path,
    drawn: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(name, monkeypatch, f"model={encoder}", "steps=4", f"output={tmp_path}")
    assert drawn == [step for step in range(4) for _ in range(micro_batches)]
    assert RANK.findall(capsys.readouterr().out) == list(ranks)
    check_adapter(tmp_path, AutoModelForSequenceClassification.from_pretrained(encoder))


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")  # TRL's
def test_the_trl_example_trains_and_prints_the_score_of_each_rank(
    decoder: Path,
    drawn: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("trl_sft.py", monkeypatch, f"model={decoder}", "steps=2", f"output={tmp_path}")
    assert drawn == [0, 1]
    assert RANK.findall(capsys.readouterr().out) == list("12345678")
    check_adapter(tmp_path, AutoModelForCausalLM.from_pretrained(decoder))


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")  # TRL's
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning")  # PEFT's
def test_the_example_on_a_model_of_peft_trains_and_saves_what_both_read(
    decoder: Path,
    drawn: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run("trl_peft.py", monkeypatch, f"model={decoder}", "steps=2", f"output={tmp_path}")
    assert drawn == [0, 1]
    assert RANK.findall(capsys.readouterr().out) == list("12345678")
    backbone = AutoModelForCausalLM.from_pretrained
    nested = dylora.load_nested(backbone(decoder), tmp_path).eval()
    assert all(part.lora_B.any() for part in low_rank_parts(nested).values())
    tokens = torch.ones(1, 5, dtype=torch.long)
    with dylora.at_rank(nested, 8), torch.no_grad():
        expected = nested(tokens).logits
    plain = PeftModel.from_pretrained(backbone(decoder), tmp_path).eval()
    torch.testing.assert_close(plain(tokens).logits, expected)


def test_the_example_from_a_csv_to_an_adapter_has_under_40_lines_and_writes_the_best_rank(
    encoder: Path,
    drawn: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "csv_to_adapter.py"
    code = (EXAMPLES / name).read_text().partition('"""\n\n')[2].splitlines()
    assert len([line for line in code if line.strip()]) < 40
    rows = [f"a fine day {n},good\na dull day {n},bad\n" for n in range(20)]
    (tmp_path / "own.csv").write_text("text,label\n" + "".join(rows))
    run(name, monkeypatch, str(tmp_path / "own.csv"), str(encoder), str(tmp_path / "made"))
    assert drawn == list(range(10))
    printed = capsys.readouterr().out.splitlines()[1:]
    scores = {int(line.split()[0]): float(line.split()[1]) for line in printed}
    assert list(scores) == list(range(1, 9))
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=2)
    plain = PeftModel.from_pretrained(model, tmp_path / "made")
    assert scores[plain.peft_config["default"].r] == max(scores.values())


def check_adapter(folder: Path, backbone: torch.nn.Module) -> None:
    """The saved adapter fits its backbone and has learned: B started at zero."""
    tensors = adapter_state(dylora.load_adapter(backbone, folder / "adapter.safetensors"))
    learned = [tensor.any().item() for name, tensor in tensors.items() if name.endswith("lora_B")]
    assert learned == [True] * 4


def test_the_page_on_trainers_shows_the_examples_own_code() -> None:
    """Every block of Python in it is a part of one of the examples, but for the indentation."""
    page = (ROOT / "docs" / "trainers.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    examples = [path.read_text() for path in sorted(EXAMPLES.glob("*.py"))]
    assert len(blocks) >= 4
    for block in blocks:
        shapes = [indent(block, " " * spaces) for spaces in (0, 4, 8)]
        assert any(shape in example for shape in shapes for example in examples), block
