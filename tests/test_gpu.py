"""What only a GPU shows: no tensor stays behind on the CPU, and fp16 goes on where it stopped."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from decoders import TOKENIZER, decoder
from small_run import config, make_home, record_of, steps_of
from tiny import inputs, randomize, roberta

import dylora
from dylora.suite.config import DecodeConfig
from dylora.suite.signals import Interrupted
from dylora.training import classification, experiment
from dylora.training.decode import beam_search

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]
PLAIN = ["model.dropout=0.0", "method.dropout=0.0"]  # the devices draw dropout differently


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Later tests choose their device anew."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("scope", ["step", "sample"])
def test_training_takes_the_steps_of_a_cpu(scope: str, home: Path, tmp_path: Path) -> None:
    losses = []
    for device in ("cpu", DEVICE):
        more = [*PLAIN, f"method.rank_scope={scope}", f"device={device}"]
        experiment.run(config(home, tmp_path / device, *more))
        assert record_of(tmp_path / device)["status"] == "done"
        losses.append([step.loss for step in steps_of(tmp_path / device)])
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)


@pytest.mark.parametrize("frozen", [False, True])
def test_each_example_has_its_own_rank(frozen: bool) -> None:
    model = dylora.adapt(roberta(), ["query", "value"], max_rank=4, frozen=frozen)
    randomize(model)
    model.to(DEVICE)
    rows = inputs(4).to(DEVICE)
    with dylora.at_rank(model, torch.tensor([4, 1, 3, 2])):
        together = model(rows).logits
    together.sum().backward()
    for row, rank in enumerate([4, 1, 3, 2]):
        with dylora.at_rank(model, rank):
            torch.testing.assert_close(model(rows).logits[row], together[row], rtol=1e-4, atol=1e-5)


def test_an_interrupted_run_in_fp16_ends_as_if_it_had_not_been(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["train.precision=fp16", f"device={DEVICE}", *PLAIN]
    experiment.run(config(home, tmp_path / "whole", *options))
    loss, calls = classification.loss, []

    def stopping(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return loss(*arguments)

    monkeypatch.setattr(classification, "loss", stopping)
    with pytest.raises(Interrupted):
        experiment.run(config(home, tmp_path / "parts", *options))
    [checkpoint] = tmp_path.glob("parts/records/*/checkpoint/state.pt")
    assert torch.load(checkpoint, weights_only=True)["scaler"]["_growth_tracker"] > 0
    experiment.run(config(home, tmp_path / "parts", *options))
    assert steps_of(tmp_path / "parts") == steps_of(tmp_path / "whole")
    assert record_of(tmp_path / "parts")["scores"] == record_of(tmp_path / "whole")["scores"]


def test_decoding_gives_the_texts_of_a_cpu() -> None:
    settings = DecodeConfig(beams=3, max_new_tokens=8)
    prompts = [[5, 9, 7, 0], [3, 0]]
    model = decoder()
    expected = beam_search(model, TOKENIZER, prompts, settings)
    assert beam_search(model.to(DEVICE), TOKENIZER, prompts, settings) == expected
