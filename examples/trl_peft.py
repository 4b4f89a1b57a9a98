"""DyLoRA on a model of PEFT in TRL's SFTTrainer: one line makes its LoRA any-rank.

  python examples/trl_peft.py
  python examples/trl_peft.py model=FOLDER_OR_HUB_ID

The data and the tiny default model are those of trl_sft.py. What it saves is a LoRA for PEFT.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
from trl import SFTConfig
from trl_sft import RankedSFTTrainer, inns

import dylora
from dylora.integrations import DyLoRACallback
from dylora.pretraining.pretrain import toy_model
from dylora.suite.cli import options, plain_errors


@dataclass
class Options:
    model: str | None = None  # folder or hub id of a causal language model
    steps: int = 100  # optimizer steps of 8 inns
    output: str = "dylora-example"  # folder for what is trained


def main() -> None:
    chosen = options(Options, __doc__)
    source = chosen.model or str(toy_model("tiny_gpt2", Path.home() / ".cache" / "dylora"))
    set_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    backbone = AutoModelForCausalLM.from_pretrained(
        source, trust_remote_code=False, dtype=torch.float32
    )

    lora = LoraConfig(r=8, lora_alpha=16, task_type="CAUSAL_LM", target_modules="all-linear")
    model = dylora.nest(get_peft_model(backbone, lora))
    trainer = RankedSFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=chosen.output,
            max_steps=chosen.steps,
            per_device_train_batch_size=8,
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
    model.save_pretrained(chosen.output)  # read again by dylora.load_nested, at r by PEFT

    metrics = trainer.evaluate()
    for rank in trainer.eval_ranks:
        print(f"rank {rank}: loss {metrics[f'eval_loss_r{rank}']:.3f}")


if __name__ == "__main__":
    with plain_errors(OSError):  # of a model that is not there
        main()
