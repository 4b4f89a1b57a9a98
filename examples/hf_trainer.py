"""DyLoRA in the Hugging Face Trainer: train once, score every rank, keep the best checkpoint.

python examples/hf_trainer.py
python examples/hf_trainer.py model=FOLDER_OR_HUB_ID steps=100
"""

import numpy as np
import torch
from datasets import Dataset
from reviews import Options, reviews
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    EvalPrediction,
    TrainingArguments,
    set_seed,
)

import dylora
from dylora.integrations import DyLoRACallback, RankedTrainer
from dylora.suite.cli import options, plain_errors


def compute_metrics(predicted: EvalPrediction) -> dict[str, float]:
    right = np.argmax(predicted.predictions, axis=-1) == predicted.label_ids
    return {"accuracy": right.mean().item()}


def main() -> None:
    chosen = options(Options, __doc__)
    set_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(chosen.model, trust_remote_code=False)
    model = AutoModelForSequenceClassification.from_pretrained(
        chosen.model, trust_remote_code=False
    )
    train, test = (
        Dataset.from_dict({**tokenizer(texts), "labels": labels})
        for texts, labels in (reviews(), reviews(new_words=True))
    )

    model = dylora.adapt(model, target_modules=["query", "value"], max_rank=8, alpha=16)
    trainer = RankedTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=chosen.output,
            max_steps=chosen.steps,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=96,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            eval_strategy="steps",
            save_strategy="steps",
            eval_steps=0.5,  # of all steps
            save_steps=0.5,
            save_total_limit=1,
            metric_for_best_model="eval_accuracy_mean",  # over the ranks, or eval_accuracy_r1, ...
            load_best_model_at_end=True,
            report_to="none",
            dataloader_pin_memory=torch.cuda.is_available(),
        ),
        train_dataset=train,
        eval_dataset=test,
        processing_class=tokenizer,
        compute_metrics=compute_metrics,
        callbacks=[DyLoRACallback(dylora.RankSampler(max_rank=8, seed=1))],
        eval_ranks=[1, 2, 4, 8],  # leave it out to score every rank
    )
    trainer.train()
    dylora.save_adapter(model, f"{chosen.output}/adapter.safetensors")

    metrics = trainer.evaluate()
    for rank in trainer.eval_ranks:
        print(f"rank {rank}: accuracy {metrics[f'eval_accuracy_r{rank}']:.1%}")


if __name__ == "__main__":
    with plain_errors(OSError):  # of a model that is not there
        main()
