"""Beam search at every rank, kept as text files; a killed run continues where it stopped.

The search is transformers' own, set as near to LoRA's (microsoft/LoRA examples/NLG, gpt2_beam.py)
as it can be. The same as there: score log p / length^penalty, the end token counted; n-grams are
blocked among generated tokens only, and probabilities renormalized after blocking; an empty line
ends a text as the end token does; nothing that could still win is given up early. Different: in
LoRA's search continuations that end leave their places in the beam empty for one step, transformers
fills them, so that its search is a little wider; LoRA cuts the beginning off a prompt that is too
long, here it is refused.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dylora.adapted import adapter_layers, merged
from dylora.adapter import adapter_state
from dylora.errors import UserError
from dylora.files import write_lines
from dylora.rank import at_rank
from dylora.suite.config import DecodeConfig
from dylora.training.batching import budget_batches
from dylora.training.causal import encode_prompts, end_token, padding_token
from dylora.training.decode_log import DecodeLog

EMPTY_LINE = "\n\n"


def decode_ranks(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    settings: DecodeConfig,
    folder: Path,
    ranks: Sequence[int | None],
    split: str = "test",
) -> dict[int | None, list[str]]:
    """The text that each rank gives for each source, also written to `folder/{split}.rank{b}.txt`.

    The rank None stands for a model without adapters and gives `{split}.rank0.txt`. Raises
    UserError on a rank outside the adapter and as `decode` does.
    """
    for rank in ranks:
        if rank is not None:
            with at_rank(model, rank):  # a bad rank is refused now, not after hours
                pass
    trained = _digest_trained(model)
    outputs = {}
    with tqdm(total=len(set(sources)) * len(ranks), unit="input", disable=None) as progress:
        for rank in ranks:
            label = f"{split}.rank{rank or 0}"
            progress.set_description(f"decode {label}")
            with _in_force(model, rank):
                path = folder / f"{label}.txt"
                outputs[rank] = decode(
                    model, tokenizer, sources, settings, path, progress, weights=trained
                )
    return outputs


def _in_force(model: PreTrainedModel, rank: int | None) -> AbstractContextManager[nn.Module]:
    """The rank merged into the weights, for speed, where they have the digits to hold the sum."""
    bases = [layer.base.weight for layer in adapter_layers(model).values()]
    full_precision = all(base.dtype in (torch.float32, torch.float64) for base in bases)
    return merged(model, rank) if rank is not None and full_precision else at_rank(model, rank)


def decode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sources: Sequence[str],
    settings: DecodeConfig,
    output: Path,
    progress: tqdm | None = None,
    weights: str = "",
) -> list[str]:
    """Beam search at the rank in force: one text per source, also the lines of the file `output`.

    Equal sources are decoded once. Every finished batch is appended to `output` with the suffix
    .jsonl; a later call with the same prompts, search settings and `weights` (any name for what
    the model has learned) takes from there what is done and decodes the rest. Raises UserError if a
    prompt and `max_new_tokens` do not fit into the model's context, or if there is no end token.
    """
    distinct = {source: i for i, source in enumerate(dict.fromkeys(sources))}
    prompts = encode_prompts(list(distinct), tokenizer)
    _check_lengths(prompts, settings, model)
    search = {k: v for k, v in asdict(settings).items() if k != "token_budget"}
    key = hashlib.sha256(json.dumps([prompts, search, weights]).encode()).hexdigest()
    log = DecodeLog(output.with_suffix(".jsonl"), key)
    if len(log.texts) < len(prompts):
        output.unlink(missing_ok=True)  # nothing of an earlier adapter may stand there meanwhile
    if progress is not None:
        progress.update(len(log.texts))
    # Batches are cut from all prompts, also when some are done: a resumed run then pads, and so
    # rounds, exactly as one that was never interrupted.
    lengths = [len(prompt) + settings.max_new_tokens for prompt in prompts]
    for batch in budget_batches(lengths, settings.token_budget // settings.beams):
        if not all(i in log.texts for i in batch):
            texts = beam_search(model, tokenizer, [prompts[i] for i in batch], settings)
            new = sum(i not in log.texts for i in batch)
            log.append(dict(zip(batch, texts, strict=True)))
            if progress is not None:
                progress.update(new)
    lines = [log.texts[distinct[source]] for source in sources]
    write_lines(output, lines)
    return lines


@torch.inference_mode()
def beam_search(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    settings: DecodeConfig,
) -> list[str]:
    """The best text for each prompt of a batch: one line each, without marks."""
    pad = padding_token(tokenizer)
    stop = _stop_tokens(tokenizer)
    width = max(len(prompt) for prompt in prompts)
    rows = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    marks = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    input_ids = torch.tensor(rows, device=model.device)
    mask = torch.tensor(marks, device=model.device)
    processors = LogitsProcessorList()
    if settings.no_repeat_ngram_size > 0:
        processors.append(NoRepeatGenerated(settings.no_repeat_ngram_size, width))
    with _plain(model):
        generated = model.generate(  # type: ignore[operator]  # every decoder has it
            input_ids,
            attention_mask=mask,
            past_key_values=_prompt_cache(model, input_ids, mask, settings.beams),
            generation_config=_generation_config(settings, stop, pad),
            logits_processor=processors,
        )
    return [_finish(tokens, tokenizer, stop) for tokens in generated[:, width:].tolist()]


class NoRepeatGenerated(LogitsProcessor):
    """Blocks n-grams that the generated text already has.

    Where transformers' processor also counts those of the prompt, LoRA's search does not: a name of
    four tokens in the input may then appear in the text, once.
    """

    def __init__(self, size: int, prompt_length: int) -> None:
        self.block = NoRepeatNGramLogitsProcessor(size)
        self.prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.block(input_ids[:, self.prompt_length :], scores)


def _generation_config(settings: DecodeConfig, stop: list[int], pad: int) -> GenerationConfig:
    beams: dict[str, Any] = {}
    if settings.beams > 1:
        # "never": go on while a longer text could have the better score, in practice to the last
        # step, as LoRA's search does. False: only while texts of the present length could.
        stopping = "never" if settings.exact else False
        beams = {"length_penalty": settings.length_penalty, "early_stopping": stopping}
    return GenerationConfig(
        num_beams=settings.beams,
        do_sample=False,
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=stop,
        pad_token_id=pad,
        renormalize_logits=True,
        use_cache=True,
        **beams,
    )


def _prompt_cache(
    model: PreTrainedModel, input_ids: Tensor, mask: Tensor, beams: int
) -> DynamicCache | None:
    """Keys and values of the prompts but their last token, computed once and copied to every beam.

    `generate` by itself computes them for each beam: with ten beams and an E2E prompt of 40 tokens
    that is as much work as writing a text of 40 tokens.
    """
    if input_ids.shape[1] == 1:
        return None
    cache = DynamicCache(config=model.config)
    mask = mask[:, :-1]
    model(
        input_ids=input_ids[:, :-1],
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),  # padding on the left does not count
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    cache.batch_repeat_interleave(beams)
    return cache


@contextmanager
def _plain(model: PreTrainedModel) -> Iterator[None]:
    """Dropout off, and none of the sampling or penalties that the model's authors recommend."""
    training, recommended = model.training, model.generation_config
    model.eval()
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = recommended
        model.train(training)


def _stop_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The end token and, where there is one, the token of an empty line (GPT-2's 628)."""
    empty_line = tokenizer(EMPTY_LINE, add_special_tokens=False)["input_ids"]
    return [end_token(tokenizer), *(empty_line if len(empty_line) == 1 else [])]


def _finish(tokens: list[int], tokenizer: PreTrainedTokenizerBase, stop: list[int]) -> str:
    """Text up to the first stop token or empty line, on one line."""
    length = next((i for i, token in enumerate(tokens) if token in stop), len(tokens))
    text = str(
        tokenizer.decode(
            tokens[:length], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
    )
    return " ".join(text.strip().partition(EMPTY_LINE)[0].splitlines()).strip()


def _check_lengths(
    prompts: Sequence[Sequence[int]], settings: DecodeConfig, model: PreTrainedModel
) -> None:
    context = getattr(model.config, "max_position_embeddings", None)
    longest = max(range(len(prompts)), key=lambda i: len(prompts[i]))
    tokens, room = len(prompts[longest]), settings.max_new_tokens
    if context is not None and tokens + room > context:
        raise UserError(
            f"input {longest + 1} has {tokens} tokens; with task.decode.max_new_tokens={room} that "
            f"is more than the model's context of {context}: shorten the input, or set "
            f"task.decode.max_new_tokens={context - tokens} or less"
            if tokens < context
            else f"input {longest + 1} has {tokens} tokens, the model's context is {context}: "
            "shorten the input or use a model with a longer context"
        )


def _digest_trained(model: PreTrainedModel) -> str:
    """A fingerprint of what was trained, so that texts of another adapter are not taken over."""
    digest = hashlib.sha256()
    for name, tensor in sorted(adapter_state(model).items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
