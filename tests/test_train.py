"""The training loop: ranks, accumulation, selection, interruption."""

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from tiny import inputs, roberta
from torch import nn

import dylora
from dylora.adapter import adapter_state
from dylora.errors import UserError
from dylora.rank import rank_state
from dylora.suite.config import MethodConfig, RankLoss, RankScope, TrainConfig
from dylora.suite.signals import Interrupted, hand_on_signals, stop_requests
from dylora.training.loop import Progress, train
from dylora.training.step import Objective

ROWS = 20
TOKENS = inputs(ROWS, 6)
LABELS = (TOKENS[:, 0] > 25).long()


class Recorder:
    """An objective that notes the rank of every forward pass and gives scores as told."""

    def __init__(self, scores: Sequence[float] = (), stop_at: int | None = None) -> None:
        self.ranks: list[Any] = []
        self.scored: list[list[int | None]] = []
        self.planned = list(scores)
        self.stop_at = stop_at
        self.losses = 0

    def loss(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        self.ranks.append(rank_state(model).rank)
        self.losses += 1
        if self.losses == self.stop_at:
            signal.raise_signal(signal.SIGTERM)
        return F.cross_entropy(model(input_ids=batch["input_ids"]).logits, batch["labels"])

    def evaluate(self, model: nn.Module, ranks: Sequence[int | None]) -> Any:
        self.scored.append(list(ranks))
        value = self.planned.pop(0) if self.planned else 0.0
        return {rank: {"score": value} for rank in ranks}

    def objective(self) -> Objective:
        def collate(examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
            rows = [e["row"] for e in examples]
            return {"input_ids": TOKENS[rows], "labels": LABELS[rows]}

        examples = [{"row": row, "length": 6} for row in range(ROWS)]
        return Objective(examples, collate, self.loss, self.evaluate, "score")


def adapted(dropout: float = 0.1, **options: Any) -> nn.Module:
    return dylora.adapt(roberta(), ["query", "value"], max_rank=4, dropout=dropout, **options)


def fit(
    model: nn.Module,
    recorder: Recorder,
    folder: Path,
    method: Any = None,
    scaler: Any = None,
    **options: Any,
) -> Progress:
    settings: dict[str, Any] = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-2} | options
    plan = TrainConfig(**settings)
    rules = method or MethodConfig(name="dylora", max_rank=4)
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = scaler
    return train(model, recorder.objective(), plan, rules, 7, folder, accelerator)


def test_each_step_has_the_rank_that_its_sampler_draws(tmp_path: Path) -> None:
    recorder = Recorder()
    fit(adapted(), recorder, tmp_path)
    sampler = dylora.RankSampler(4, seed=7)
    assert recorder.ranks == [sampler(step) for step in range(15)]
    assert len(set(recorder.ranks)) == 4


def test_a_large_epsilon_holds_adamw_back(tmp_path: Path) -> None:
    model = adapted()
    before = {name: tensor.clone() for name, tensor in adapter_state(model).items()}
    fit(model, Recorder(), tmp_path, adam_eps=1e9, weight_decay=0.0)
    for name, tensor in adapter_state(model).items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-9)


def test_micro_batches_of_one_step_share_its_rank(tmp_path: Path) -> None:
    recorder = Recorder()
    progress = fit(adapted(), recorder, tmp_path, batch_size=2, accumulation=2)
    sampler = dylora.RankSampler(4, seed=7)
    assert recorder.ranks == [sampler(step) for step in range(15) for _ in range(2)]
    assert progress.step == 15


def test_accumulated_micro_batches_take_the_step_of_the_whole_batch(tmp_path: Path) -> None:
    """Equal lengths put the same rows in a window of 2 x 2 as in a batch of 4."""
    lora = MethodConfig(name="lora", max_rank=4)
    results = []
    for name, size, count in (("whole", 20, 1), ("parts", 5, 4)):
        model = adapted(dropout=0.0, method="lora")
        options = {"batch_size": size, "accumulation": count, "epochs": 4}
        fit(model, Recorder(), tmp_path / name, lora, select="last", **options)
        results.append(adapter_state(model))
    for name, tensor in results[0].items():
        torch.testing.assert_close(tensor, results[1][name], rtol=1e-3, atol=1e-5)


def test_the_summed_loss_is_the_mean_over_every_rank(tmp_path: Path) -> None:
    rules = MethodConfig(name="dylora", max_rank=4, loss=RankLoss.sum)
    recorder = Recorder()
    options = {"epochs": 1, "batch_size": 20, "select": "last"}
    progress = fit(adapted(dropout=0.0), recorder, tmp_path, rules, **options)
    assert recorder.ranks == [1, 2, 3, 4]
    twin, own = adapted(dropout=0.0), Recorder()
    batch = own.objective().collate(own.objective().examples)
    losses = []
    for rank in (1, 2, 3, 4):
        with dylora.at_rank(twin, rank):
            losses.append(own.objective().loss(twin, batch).item())
    assert progress.steps[0]["loss"] == pytest.approx(sum(losses) / 4, abs=1e-5)
    assert progress.steps[0]["rank"] == 2.5


def test_rank_scope_sample_gives_each_example_its_rank(tmp_path: Path) -> None:
    recorder = Recorder()
    method = MethodConfig(name="dylora", max_rank=4, rank_scope=RankScope.sample)
    fit(adapted(), recorder, tmp_path, method, batch_size=4)
    assert all(sorted(ranks.tolist()) == [1, 2, 3, 4] for ranks in recorder.ranks)


def test_lora_trains_at_max_rank_only(tmp_path: Path) -> None:
    recorder = Recorder()
    lora = MethodConfig(name="lora", max_rank=4)
    fit(adapted(method="lora"), recorder, tmp_path, lora, select="max")
    assert set(recorder.ranks) == {4}
    assert recorder.scored == [[4]] * 3


def test_training_learns(tmp_path: Path) -> None:
    model = adapted(dropout=0.0)
    progress = fit(model, Recorder(), tmp_path, epochs=30, select="last")
    losses = [point["loss"] for point in progress.steps]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    for rank in (1, 4):
        with dylora.at_rank(model, rank):
            accuracy = (model(TOKENS).logits.argmax(-1) == LABELS).float().mean()
        assert accuracy > 0.9


def test_strict_freeze_holds_the_rows_above_the_drawn_ranks(tmp_path: Path) -> None:
    """Only ranks 1 and 2 are trained on, so rows 3 and 4 must be as they were."""
    for strict in (False, True):
        method = MethodConfig(name="dylora", max_rank=4, strict_freeze=strict)
        method.rank_distribution = "geometric"
        method.geometric_p = 1 - 1e-9
        model = adapted()
        before = {n: t.clone() for n, t in adapter_state(model).items()}
        recorder = Recorder()
        fit(model, recorder, tmp_path / str(strict), method, select="last", weight_decay=0.1)
        assert set(recorder.ranks) == {1}
        kept = [
            torch.equal(tensor[1:], before[name][1:])
            for name, tensor in adapter_state(model).items()
            if name.endswith("lora_A")
        ]
        assert all(kept) if strict else not any(kept)


def test_the_best_epoch_by_the_mean_over_ranks_is_kept(tmp_path: Path) -> None:
    model, recorder = adapted(), Recorder(scores=[0.2, 0.9, 0.4])
    progress = fit(model, recorder, tmp_path)
    assert recorder.scored == [[1, 2, 4]] * 3
    assert (progress.best_epoch, progress.best) == (2, pytest.approx(0.9))
    twin = adapted()
    fit(twin, Recorder(scores=[0.2, 0.9, 0.4]), tmp_path / "last", select="last")
    states = adapter_state(model), adapter_state(twin)
    assert any(not torch.equal(states[0][n], states[1][n]) for n in states[0])
    loaded = dylora.load_adapter(roberta(), tmp_path / "adapter.safetensors")
    assert all(torch.equal(t, states[0][n]) for n, t in adapter_state(loaded).items())


def test_a_named_rank_decides_when_asked_to(tmp_path: Path) -> None:
    class PerRank(Recorder):
        def evaluate(self, model: nn.Module, ranks: Sequence[int | None]) -> Any:
            epoch = len(self.scored)
            self.scored.append(list(ranks))
            return {rank: {"score": epoch if rank == 1 else -epoch} for rank in ranks}

    by_rank_1 = fit(adapted(), PerRank(), tmp_path / "1", select="1")
    by_max = fit(adapted(), PerRank(), tmp_path / "max", select="max", eval_ranks=[1, 4])
    assert (by_rank_1.best_epoch, by_max.best_epoch) == (3, 1)


def test_patience_ends_training_early(tmp_path: Path) -> None:
    recorder = Recorder(scores=[0.5, 0.4, 0.3, 0.9, 0.9])
    progress = fit(adapted(), recorder, tmp_path, epochs=5, patience=2)
    assert (len(progress.epochs), progress.best_epoch) == (3, 1)


def test_max_steps_ends_training_within_an_epoch(tmp_path: Path) -> None:
    progress = fit(adapted(), Recorder(), tmp_path, max_steps=7)
    assert (progress.step, len(progress.epochs)) == (7, 2)


@pytest.mark.parametrize("stop_at", [1, 7, 10, 15], ids=lambda s: f"after-step-{s}")
@pytest.mark.parametrize("scores", [[0.1, 0.3, 0.2], [0.1, 0.2, 0.3]], ids=["second", "last"])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    stop_at: int, scores: list[float], tmp_path: Path
) -> None:
    """Dropout included, to the bit, wherever it stops: first step, mid-epoch, epoch end, end."""
    whole = adapted()
    expected = fit(whole, Recorder(scores=scores), tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(adapted(), Recorder(scores=scores, stop_at=stop_at), tmp_path / "parts")
    resumed, rest = adapted(), Recorder(scores=scores[(stop_at - 1) // 5 :])
    progress = fit(resumed, rest, tmp_path / "parts")
    assert rest.losses == 15 - stop_at
    assert progress.steps == expected.steps
    assert (progress.best, progress.best_epoch) == (expected.best, expected.best_epoch)
    states = adapter_state(whole), adapter_state(resumed)
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])


def test_a_resumed_run_goes_on_with_the_scale_of_its_loss(tmp_path: Path) -> None:
    """The scale of fp16 doubles every third step; the count of the steps since is state too."""

    def scaler() -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)

    whole, stopped, resumed = scaler(), scaler(), scaler()
    options = {"epochs": 1, "max_grad_norm": 0.0}
    expected = fit(adapted(), Recorder(), tmp_path / "whole", scaler=whole, **options)
    with pytest.raises(Interrupted):
        fit(adapted(), Recorder(stop_at=4), tmp_path / "parts", scaler=stopped, **options)
    progress = fit(adapted(), Recorder(), tmp_path / "parts", scaler=resumed, **options)
    assert stopped.get_scale() == 16.0
    assert resumed.state_dict() == whole.state_dict() != scaler().state_dict()
    assert progress.steps == expected.steps


def test_a_step_that_its_scaler_leaves_out_does_not_lower_the_learning_rate(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=float("inf"))  # every gradient overflows
    model = adapted()
    before = {name: tensor.clone() for name, tensor in adapter_state(model).items()}
    progress = fit(model, Recorder(), tmp_path, scaler=scaler, epochs=1, max_grad_norm=0.0)
    assert len({point["lr"] for point in progress.steps}) == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapter_state(model).items())


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    model = adapted()
    with torch.no_grad():
        model.classifier.out_proj.bias.fill_(float("nan"))
    with pytest.raises(UserError, match="loss is nan at step 0, rank 4, learning rate 0"):
        fit(model, Recorder(), tmp_path)


@pytest.mark.parametrize(
    "options",
    [
        {"learning_rate": 1e38, "warmup_steps": 15},
        {"learning_rate": 1e20, "warmup_steps": 0},
        {"alpha": 1e30, "max_grad_norm": 0.0},
    ],
)
def test_diverging_training_leaves_a_dump_that_fails_again(
    options: dict[str, float], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {**options}
    model = adapted(dropout=0.0, alpha=settings.pop("alpha", 16))
    message = r"is (nan|inf) at step \d+, rank [1-4], learning rate .*divergence\.pt"
    with pytest.raises(UserError, match=message) as error:
        fit(model, Recorder(), tmp_path, **settings)
    dump = torch.load(tmp_path / "divergence.pt", weights_only=True)
    assert f"step {dump['step']}, rank {dump['rank']:g}" in str(error.value)
    again = adapted(dropout=0.0, alpha=options.get("alpha", 16))
    with torch.no_grad():
        for name, tensor in adapter_state(again).items():
            tensor.copy_(dump["trained"][name])
    with dylora.at_rank(again, int(dump["rank"])):
        assert not Recorder().loss(again, dump["batches"][0]).isfinite()


@pytest.mark.parametrize(
    ("alpha", "rate", "message"),
    [(1e30, 1e-2, "the norm of the gradients is inf"), (16, 1e38, "the step is no float32")],
)
def test_a_step_that_would_do_nothing_or_overflow_ends_the_run(
    alpha: float, rate: float, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"{message} at step 0, rank 4, learning rate"):
        fit(adapted(alpha=alpha), Recorder(), tmp_path, learning_rate=rate, warmup_steps=0)


def test_weights_that_diverge_in_the_last_step_are_not_kept(tmp_path: Path) -> None:
    options = {"learning_rate": 3e37, "weight_decay": 1e3, "warmup_steps": 0, "max_steps": 1}
    with pytest.raises(UserError, match="weights are no finite numbers at step 0, rank 4"):
        fit(adapted(), Recorder(), tmp_path, **options)
    assert not (tmp_path / "adapter.safetensors").exists()


def test_a_score_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="score of rank 1 is inf at step 4"):
        fit(adapted(), Recorder(scores=[float("inf")]), tmp_path)


@pytest.fixture
def warnings() -> Iterator[list[int]]:
    """The signals that a launcher's own handler of SIGUSR2 has been given."""
    given: list[int] = []
    former = signal.signal(signal.SIGUSR2, lambda number, frame: given.append(number))
    yield given
    signal.signal(signal.SIGUSR2, former)


def test_a_launchers_warning_reaches_it_once_training_has_stopped(warnings: list[int]) -> None:
    with pytest.raises(Interrupted), hand_on_signals():
        try:
            with stop_requests() as stop:
                signal.raise_signal(signal.SIGTERM)  # preemption sends both, and in this order
                signal.raise_signal(signal.SIGUSR2)
                signal.raise_signal(signal.SIGTERM)
                assert stop == [signal.SIGTERM, signal.SIGUSR2, signal.SIGTERM]
                raise Interrupted
        finally:
            assert warnings == []  # the record is written here
    assert warnings == [signal.SIGUSR2]


def test_a_second_ctrl_c_ends_training_at_once(warnings: list[int]) -> None:
    with pytest.raises(KeyboardInterrupt), hand_on_signals(), stop_requests() as stop:
        signal.raise_signal(signal.SIGUSR2)
        signal.raise_signal(signal.SIGINT)
        assert len(stop) == 2
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")
    assert warnings == []


def test_warnings_without_a_handler_keep_their_meaning() -> None:
    with stop_requests():
        assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
