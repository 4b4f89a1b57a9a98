"""DyLoRA with accelerate: the same loop on one device or several, with accumulated gradients.

python examples/accelerate_loop.py
torchrun --nproc-per-node 2 examples/accelerate_loop.py  # no GPU: ACCELERATE_USE_CPU=true before it
"""

from typing import Any

import torch
from accelerate import Accelerator
from datasets import Dataset
from reviews import Options, reviews
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

import dylora
from dylora.suite.cli import options, plain_errors


def main() -> None:
    chosen = options(Options, __doc__)
    accelerator = Accelerator(gradient_accumulation_steps=2)
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(chosen.model, trust_remote_code=False)
    model = AutoModelForSequenceClassification.from_pretrained(
        chosen.model, trust_remote_code=False
    )

    train, test = (
        Dataset.from_dict({**tokenizer(texts), "labels": labels})
        for texts, labels in (reviews(), reviews(new_words=True))
    )
    collate = DataCollatorWithPadding(tokenizer)
    batch_size = 16 // (2 * accelerator.num_processes)  # 16 reviews to an optimizer step
    loader: Any = DataLoader(train, batch_size, shuffle=True, collate_fn=collate)

    model = dylora.adapt(model, target_modules=["query", "value"], max_rank=8, alpha=16)
    sampler = dylora.RankSampler(max_rank=8, seed=1)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    model.train()
    step = 0  # optimizer steps done, the same number on all processes, and so the same rank
    while step < chosen.steps:
        for batch in loader:
            with accelerator.accumulate(model), dylora.at_rank(model, sampler(step)):
                accelerator.backward(model(**batch).loss)
                optimizer.step()
                optimizer.zero_grad()
            step += accelerator.sync_gradients  # not after every micro-batch
            if step == chosen.steps:
                break
    model = accelerator.unwrap_model(model)
    if accelerator.is_main_process:
        dylora.save_adapter(model, f"{chosen.output}/adapter.safetensors")

    model.eval()
    batch = {name: tensor.to(accelerator.device) for name, tensor in collate(list(test)).items()}
    for rank in range(1, 9):
        with dylora.at_rank(model, rank), torch.no_grad():
            predicted = model(**batch).logits.argmax(-1)
        accuracy = (predicted == batch["labels"]).float().mean()
        accelerator.print(f"rank {rank}: accuracy {accuracy:.1%}")
    accelerator.end_training()


if __name__ == "__main__":
    with plain_errors(OSError):  # of a model that is not there
        main()
