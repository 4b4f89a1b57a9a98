"""DyLoRA in a training loop of your own: train once, score every rank.

python examples/plain_pytorch.py
python examples/plain_pytorch.py model=FOLDER_OR_HUB_ID steps=100
"""

import torch
from reviews import Options, reviews
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import dylora
from dylora.suite.cli import options, plain_errors


def main() -> None:
    chosen = options(Options, __doc__)
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(chosen.model, trust_remote_code=False)
    model = AutoModelForSequenceClassification.from_pretrained(
        chosen.model, trust_remote_code=False
    )
    texts, labels = reviews()

    # The ten lines: adapt, draw a rank for each step, save.
    model = dylora.adapt(model, target_modules=["query", "value"], max_rank=8, alpha=16)
    sampler = dylora.RankSampler(max_rank=8, seed=1)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    model.train()
    for step in range(chosen.steps):
        rows = torch.randint(len(texts), (16,)).tolist()
        batch = tokenizer([texts[i] for i in rows], padding=True, return_tensors="pt")
        with dylora.at_rank(model, sampler(step)):  # one rank per optimizer step
            loss = model(**batch, labels=torch.tensor([labels[i] for i in rows])).loss
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    dylora.save_adapter(model, f"{chosen.output}/adapter.safetensors")

    model.eval()
    texts, labels = reviews(new_words=True)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    for rank in range(1, 9):
        with dylora.at_rank(model, rank), torch.no_grad():
            predicted = model(**batch).logits.argmax(-1)
        accuracy = (predicted == torch.tensor(labels)).float().mean()
        print(f"rank {rank}: accuracy {accuracy:.1%}")


if __name__ == "__main__":
    with plain_errors(OSError):  # of a model that is not there
        main()
