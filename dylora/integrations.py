"""DyLoRA in the Hugging Face `Trainer`, and so in TRL's trainers, which are built on it.

>>> model = dylora.adapt(model, target_modules=["query", "value"], max_rank=8)
>>> ranks = DyLoRACallback(dylora.RankSampler(max_rank=8, seed=1))
>>> trainer = RankedTrainer(model=model, args=arguments, callbacks=[ranks], ...)
>>> trainer.train()
>>> trainer.evaluate()  # eval_accuracy_r1 .. eval_accuracy_r8, eval_loss_r1 .. and their means

The callback alone is enough to train; `RankedTrainer` scores the ranks. Our own loop is in
`dylora.training.loop`; both give the same adapter from the same seed and batches.
"""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput

from dylora.adapted import hold_untrained_rows, low_rank_parts
from dylora.adapter import save_adapter
from dylora.errors import UserError
from dylora.files import ADAPTER
from dylora.rank import at_rank, rank_state, set_rank
from dylora.sampler import RankSampler

NOT_SCORES = ("model_preparation_time", "num_tokens")  # among the metrics of an evaluation


class DyLoRACallback(TrainerCallback):
    """Puts the sampled rank in force for each optimizer step, and max_rank between the steps.

    All micro-batches of a step and all workers have the rank `sampler(state.global_step)`, so that
    training resumed from a checkpoint goes on with the ranks that it would have had. Evaluation in
    the middle of training runs at max_rank, not at whatever rank was drawn last. `strict_freeze`
    holds the rows that a step's rank leaves out against AdamW's momentum and weight decay. With
    `per_example` each example of a micro-batch has its own rank, as `sampler.per_sample` spreads
    them; the first tensor that the model is called with has the examples as its rows.

    The adapter is written to adapter.safetensors in every checkpoint of the Trainer.

    Training raises UserError at its start if the model has no adapter, or one that this sampler
    does not fit, if the adapter's tensors are sharded (FSDP, DeepSpeed ZeRO-3), or if the arguments
    would take the highest loss for the best.
    """

    def __init__(
        self, sampler: RankSampler, strict_freeze: bool = False, per_example: bool = False
    ) -> None:
        self.sampler = sampler
        self.strict_freeze = strict_freeze
        self.per_example = per_example
        self._micro_batch = 0
        self._held = ExitStack()
        self._training = ExitStack()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._check(args, kwargs["model"])
        _use_max_rank(kwargs["model"])
        if self.per_example:
            hook = kwargs["model"].register_forward_pre_hook(self._draw, with_kwargs=True)
            self._training.callback(hook.remove)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._training.close()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Once per optimizer step, before the first of its micro-batches.
        self._micro_batch = state.global_step * args.gradient_accumulation_steps
        if not self.per_example:
            set_rank(kwargs["model"], self.sampler(state.global_step))

    def _draw(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A rank for each example of the micro-batch that the model is about to see."""
        if model.training:
            rows = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
            set_rank(model, self.sampler.per_sample(self._micro_batch, len(rows)))
            self._micro_batch += 1

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.strict_freeze:
            self._held.enter_context(hold_untrained_rows(kwargs["model"]))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._held.close()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # The Trainer logs, evaluates and saves after this event.
        _use_max_rank(kwargs["model"])

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        checkpoint = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        # A hyper-parameter search has its checkpoints elsewhere, where a callback cannot know.
        if args.should_save and checkpoint.is_dir():
            save_adapter(kwargs["model"], checkpoint / ADAPTER)

    def _check(self, args: TrainingArguments, model: nn.Module) -> None:
        adapter = rank_state(model)
        if not adapter.method.draws_ranks:
            raise UserError(
                f"the model was adapted with method={adapter.method.name!r}, which draws no ranks "
                "in training: leave DyLoRACallback out, or adapt with method='dylora'"
            )
        highest = int(self.sampler.ranks[-1])
        if highest != adapter.max_rank:
            raise UserError(
                f"the sampler draws ranks up to {highest}, the adapter's max_rank is "
                f"{adapter.max_rank}: give both the same"
            )
        matrices = [part.lora_A for part in low_rank_parts(model).values()]
        if any(lora_A.ndim != 2 or isinstance(lora_A, DTensor) for lora_A in matrices):
            raise UserError(
                "the processes share the adapter's tensors out (FSDP, DeepSpeed ZeRO-3), which "
                "DyLoRACallback does not support: train with torchrun or accelerate's MULTI_GPU"
            )
        best = args.metric_for_best_model or ""
        if re.search(r"loss_(r\d+|mean)$", best) and args.greater_is_better:
            raise UserError(
                f"metric_for_best_model={best!r} would take the highest loss for the best: "
                "set greater_is_better=False"
            )


def _use_max_rank(model: nn.Module) -> None:
    set_rank(model, rank_state(model).max_rank)


class RankedTrainer(Trainer):
    """A Trainer whose `evaluate` and `predict` score the adapter at every rank.

    To the usual metrics, those of the rank in force (max_rank, if it is trained with
    `DyLoRACallback`), come those of each rank b of `eval_ranks` (None: all) under `<metric>_r<b>`,
    such as `eval_loss_r1`, and their means under `<metric>_mean`. They are logged together, and any
    of them can be `metric_for_best_model`. `predict` returns the predictions at the rank in force.

    For another trainer put it first: `class RankedSFTTrainer(RankedTrainer, SFTTrainer): ...`.
    What TRL's trainers measure themselves, such as `mean_token_accuracy`, has its ranks as well.

    Raises UserError if the model has no adapter, or not all of the ranks.
    """

    def __init__(self, *args: Any, eval_ranks: Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.eval_ranks = self._checked(eval_ranks)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """The Trainer's own loop, once for each rank; the last pass is at the rank in force."""
        model, gather = self._adapted(), self.gather_function
        in_force = rank_state(model).rank
        scores: dict[Any, dict[str, Any]] = {}
        for rank in [*(b for b in self.eval_ranks if b != in_force), in_force]:
            self.gather_function = gather  # Seq2SeqTrainer's own lasts for one pass only
            measured = getattr(self, "_metrics", {}).get("eval", {})  # by TRL's trainers, per batch
            measured.clear()
            with at_rank(model, rank):
                output = super().evaluation_loop(*args, **kwargs)
            means = {f"eval_{name}": fmean(values) for name, values in measured.items()}
            scores[rank] = {**(output.metrics or {}), **means}
        assert output.metrics is not None
        output.metrics.update(_by_rank({b: scores[b] for b in self.eval_ranks}))
        return output

    def _adapted(self) -> nn.Module:
        assert self.model is not None
        return self.model

    def _checked(self, ranks: Sequence[int] | None) -> list[int]:
        max_rank = rank_state(self._adapted()).max_rank
        every = range(1, max_rank + 1)
        wrong = [rank for rank in ranks or every if rank not in every]
        if wrong:
            raise UserError(f"eval_ranks has {wrong[0]}; the adapter's ranks are 1..{max_rank}")
        return sorted({*(ranks or every)})


def _by_rank(scores: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Each rank's metrics as `<metric>_r<rank>`, and the mean over the ranks of each number."""
    named: dict[str, Any] = {}
    for name in next(iter(scores.values())):
        if name.endswith(NOT_SCORES):
            continue
        values = {f"{name}_r{rank}": metrics[name] for rank, metrics in scores.items()}
        named |= values
        if all(isinstance(value, int | float) for value in values.values()):
            named[f"{name}_mean"] = fmean(values.values())
    return named
