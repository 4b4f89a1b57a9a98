"""DyLoRA in TRL's SFTTrainer: a language model that describes inns, scored at every rank.

  python examples/trl_sft.py
  python examples/trl_sft.py model=FOLDER_OR_HUB_ID target_modules=[q_proj,v_proj]

Without a model it makes a tiny GPT-2 the first time, which takes about a minute.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig, SFTTrainer

import dylora
from dylora.integrations import DyLoRACallback, RankedTrainer
from dylora.pretraining.pretrain import toy_model
from dylora.suite.cli import options, plain_errors
from dylora.tasks.toy import Draw, describe, make_inn


@dataclass
class Options:
    model: str | None = None  # folder or hub id of a causal language model
    target_modules: list[str] = field(default_factory=lambda: ["c_attn:q,v"])  # GPT-2's
    steps: int = 100  # optimizer steps of 2 x 8 inns
    output: str = "dylora-example"  # folder for what is trained


class RankedSFTTrainer(RankedTrainer, SFTTrainer):
    """TRL's trainer with metrics for every rank."""


def inns(count: int, seed: int) -> Dataset:
    draw = Draw(seed, 0)
    made = [make_inn(draw) for _ in range(count)]
    prompts = [", ".join(f"{name}[{value}]" for name, value in inn.items()) for inn in made]
    completions = [f" {describe(draw, inn)}" for inn in made]
    return Dataset.from_dict({"prompt": prompts, "completion": completions})


def main() -> None:
    chosen = options(Options, __doc__)
    source = chosen.model or str(toy_model("tiny_gpt2", Path.home() / ".cache" / "dylora"))
    set_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        source, trust_remote_code=False, dtype=torch.float32
    )

    model = dylora.adapt(model, chosen.target_modules, max_rank=8, alpha=16)
    trainer = RankedSFTTrainer(  # no peft_config: the model has its adapter
        model=model,
        args=SFTConfig(
            output_dir=chosen.output,
            max_steps=chosen.steps,
            per_device_train_batch_size=8,
            gradient_accumulation_steps=2,
            learning_rate=5e-3,
            bf16=torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            save_strategy="no",
            report_to="none",
        ),
        train_dataset=inns(800, seed=1),
        eval_dataset=inns(64, seed=2),
        processing_class=tokenizer,
        callbacks=[DyLoRACallback(dylora.RankSampler(max_rank=8, seed=1))],
    )
    trainer.train()
    dylora.save_adapter(model, f"{chosen.output}/adapter.safetensors")

    metrics = trainer.evaluate()
    for rank in trainer.eval_ranks:
        loss, accuracy = (
            metrics[f"eval_{name}_r{rank}"] for name in ("loss", "mean_token_accuracy")
        )
        print(f"rank {rank}: loss {loss:.3f}, {accuracy:.1%} of the tokens right")


if __name__ == "__main__":
    with plain_errors(OSError):  # of a model that is not there
        main()
