"""A whole run of a generation task that takes a second: E2E's files, and tiny random decoders."""

from pathlib import Path

from decoders import byte_tokenizer, decoder

FOODS = ["Thai", "Indian", "French"]


def write_e2e(path: Path, names: list[str], references: int) -> None:
    lines = ["mr,ref"]
    for name in names:
        for food in FOODS:
            for number in range(references):
                text = [f"{name} has {food} food.", f"{food} food is at {name}."][number]
                lines.append(f'"name[{name}], food[{food}]","{text}"')
    path.write_text("\n".join(lines) + "\n")


def make_home(folder: Path) -> Path:
    """Data and models of the run that `options` names, in `folder`, which is returned."""
    (folder / "e2e").mkdir(parents=True)
    write_e2e(folder / "e2e" / "train.csv", ["Kea", "Moa"], 2)
    write_e2e(folder / "e2e" / "dev.csv", ["Tui"], 2)
    write_e2e(folder / "e2e" / "test.csv", ["Ruru"], 2)
    for family in ("gpt2", "llama"):
        decoder(family).float().save_pretrained(folder / family)
        byte_tokenizer().save_pretrained(folder / family)
    return folder


def options(home: Path, results: Path, family: str = "gpt2") -> list[str]:
    targets = '["c_attn:q,v"]' if family == "gpt2" else "[q_proj,v_proj]"
    return [
        "task=e2e",
        "model=gpt2",
        f"model.name_or_path={home / family}",
        f"model.target_modules={targets}",
        "task.files={train:train.csv,validation:dev.csv,test:test.csv}",
        "task.metrics=[BLEU,NIST]",
        "task.decode.beams=2",
        "task.decode.max_new_tokens=8",
        "method.max_rank=2",
        "method.alpha=4",
        "train.epochs=2",
        "train.batch_size=4",
        "train.warmup_steps=0",
        "train.learning_rate=0.01",
        f"paths.data={home}",
        f"paths.results={results}",
        "device=cpu",
    ]
