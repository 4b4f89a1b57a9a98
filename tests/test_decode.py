"""Beam search against exhaustive search, and what padding, caches and end tokens do to it."""

import math

import pytest
import torch
from datasets import Dataset
from decoders import TOKENIZER, byte_tokenizer, decoder, prompts_of
from transformers import PreTrainedModel

from dylora.suite.config import DecodeConfig
from dylora.training import causal
from dylora.training import decode as decoding
from dylora.training.decode import NoRepeatGenerated, beam_search

SETTINGS = DecodeConfig(beams=3, max_new_tokens=8, token_budget=200)


def exhaustive(model: PreTrainedModel, prompt: list[int], settings: DecodeConfig) -> list[int]:
    """The best of all continuations, each scored by plain forwards: log p / length^penalty."""
    end, size = 0, settings.no_repeat_ngram_size
    best: tuple[float, list[int]] = (-math.inf, [])

    def visit(text: list[int], score: float) -> None:
        nonlocal best
        if text and (text[-1] == end or len(text) == settings.max_new_tokens):
            best = max(best, (score / len(text) ** settings.length_penalty, text))
            return
        logits = model(torch.tensor([prompt + text])).logits[0, -1].float()
        for token in range(len(logits)):
            new = [*text, token]
            ngrams = [tuple(new[i : i + size]) for i in range(len(new) - size + 1)]
            if size and ngrams and ngrams[-1] in ngrams[:-1]:
                logits[token] = -math.inf
        for token, log_p in enumerate(logits.log_softmax(dim=-1).tolist()):
            if log_p > -math.inf:
                visit([*text, token], score + log_p)

    with torch.inference_mode():
        visit([], 0.0)
    return best[1]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(("penalty", "ngram"), [(0.8, 0), (2.0, 1), (0.9, 2), (0.0, 0)])
def test_with_enough_beams_the_search_is_exhaustive(
    family: str, penalty: float, ngram: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DecodeConfig(
        beams=130, length_penalty=penalty, no_repeat_ngram_size=ngram, max_new_tokens=4
    )
    found: list[list[int]] = []
    monkeypatch.setattr(decoding, "_finish", lambda tokens, *_: found.append(tokens) or "")
    lengths = set()
    for seed in range(3):
        model = decoder(family, vocabulary=5, seed=seed)
        prompt = [1 + (seed + i) % 4 for i in range(6)] + [0]
        found.clear()
        beam_search(model, TOKENIZER, [prompt], settings)
        expected = exhaustive(model, prompt, settings)
        assert found[0][: len(expected)] == expected
        lengths.add(len(expected))
    assert lengths != {1}, "texts that end at once would prove little"


def to_the_last_step(
    model: PreTrainedModel, prompt: list[int], settings: DecodeConfig
) -> list[int]:
    """Beam search by plain forwards that never stops before `max_new_tokens`, as LoRA's."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    best: tuple[float, list[int]] = (-math.inf, [])
    for step in range(1, settings.max_new_tokens + 1):
        candidates = []
        for score, text in beams:
            logits = model(torch.tensor([prompt + text])).logits[0, -1].float()
            for token, log_p in enumerate(logits.log_softmax(dim=-1).tolist()):
                candidates.append((score + log_p, [*text, token]))
        candidates.sort(reverse=True)
        for score, text in candidates[: settings.beams]:
            if text[-1] == 0 or step == settings.max_new_tokens:
                best = max(best, (score / step**settings.length_penalty, text))
        beams = [(s, text) for s, text in candidates if text[-1] != 0][: settings.beams]
    return best[1]


def test_nothing_that_could_still_win_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text that overtakes finished ones is found; the length penalty favors it here."""
    settings = DecodeConfig(beams=2, length_penalty=2.0, no_repeat_ngram_size=0, max_new_tokens=10)
    found: list[list[int]] = []
    monkeypatch.setattr(decoding, "_finish", lambda tokens, *_: found.append(tokens) or "")
    for seed in range(6):
        model = decoder(vocabulary=6, seed=seed)
        beam_search(model, TOKENIZER, [[1, 2, 3, 0]], settings)
        with torch.inference_mode():
            expected = to_the_last_step(model, [1, 2, 3, 0], settings)
        assert found[-1][: len(expected)] == expected


def test_inexact_search_takes_fewer_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stops when three texts have ended that running ones do not beat at their own length."""
    model, steps = decoder(vocabulary=6, seed=1), []
    for exact in (True, False):
        calls = []
        hook = model.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        settings = DecodeConfig(beams=3, max_new_tokens=60, no_repeat_ngram_size=0, exact=exact)
        beam_search(model, TOKENIZER, [[1, 2, 3, 0]], settings)
        hook.remove()
        steps.append(len(calls))
    assert steps[1] < steps[0] / 2


def test_one_beam_is_greedy() -> None:
    model = decoder(seed=3)
    settings = DecodeConfig(beams=1, no_repeat_ngram_size=0, max_new_tokens=10)
    (prompt,) = prompts_of(["x : y"])
    text: list[int] = []
    with torch.inference_mode():
        while len(text) < 10 and (not text or text[-1] != 0):
            text.append(int(model(torch.tensor([prompt + text])).logits[0, -1].argmax()))
    expected = TOKENIZER.decode([token for token in text if token != 0])
    expected = " ".join(expected.strip().partition("\n\n")[0].splitlines()).strip()
    assert beam_search(model, TOKENIZER, [prompt], settings) == [expected]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(("seed", "width", "layers"), [(0, 16, 2), (1, 32, 1), (2, 16, 3)])
def test_left_padding_changes_nothing(family: str, seed: int, width: int, layers: int) -> None:
    model = decoder(family, seed=seed, width=width, layers=layers)
    settings = DecodeConfig(beams=4, max_new_tokens=12)
    batch = prompts_of()
    together = beam_search(model, TOKENIZER, batch, settings)
    alone = [beam_search(model, TOKENIZER, [prompt], settings)[0] for prompt in batch]
    assert together == alone
    assert len(set(together)) > 3, "equal texts would prove little"


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_shared_prompt_cache_changes_nothing(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = decoder(family, seed=5), prompts_of()
    settings = DecodeConfig(beams=4, max_new_tokens=12)
    shared = beam_search(model, TOKENIZER, batch, settings)
    monkeypatch.setattr(decoding, "_prompt_cache", lambda *_: None)
    assert beam_search(model, TOKENIZER, batch, settings) == shared


def test_ngrams_of_the_prompt_may_be_said_again() -> None:
    block = NoRepeatGenerated(3, prompt_length=5)
    scores = torch.zeros(1, 9)
    fresh = block(torch.tensor([[1, 2, 3, 1, 2, 1, 2]]), scores)
    assert fresh[0, 3] == 0, "1 2 3 is in the prompt only"
    repeated = block(torch.tensor([[8, 8, 8, 8, 8, 1, 2, 3, 1, 2]]), scores)
    assert repeated[0, 3] == -math.inf
    assert (repeated == -math.inf).sum() == 1


def test_a_models_own_generation_settings_do_not_leak_in() -> None:
    """Nor does dropout; both are as before afterwards."""
    model = decoder(seed=7)
    expected = beam_search(model, TOKENIZER, prompts_of(), SETTINGS)
    model.generation_config.update(do_sample=True, temperature=9.0, repetition_penalty=5.0)
    model.train()
    assert beam_search(model, TOKENIZER, prompts_of(), SETTINGS) == expected
    assert model.generation_config.repetition_penalty == 5.0
    assert model.training


@pytest.mark.parametrize(
    ("generated", "text"),
    [("\nOne \nline\r\n", "One  line"), ("One.\n\nTwo.", "One."), ("Ends<|endoftext|>no", "Ends")],
)
def test_a_text_is_one_line_up_to_the_first_end(generated: str, text: str) -> None:
    tokens = TOKENIZER(generated)["input_ids"]
    assert decoding._finish(tokens, TOKENIZER, stop=[0]) == text


def test_an_empty_line_ends_a_text() -> None:
    """GPT-2 has a token for it, which ends a text in LoRA's search as the end token does."""
    tokenizer = byte_tokenizer(empty_line=True)
    (empty_line,) = tokenizer("\n\n")["input_ids"]
    assert decoding._stop_tokens(tokenizer) == [0, empty_line]
    assert decoding._stop_tokens(TOKENIZER) == [0], "two tokens cannot be one stop token"
    model = decoder(vocabulary=258)
    with torch.no_grad():  # whatever comes, the empty line comes next
        model.lm_head.weight.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.lm_head.weight[empty_line] = 1.0
        model.lm_head.weight[TOKENIZER("A")["input_ids"][0]] = 0.9
    settings = DecodeConfig(beams=1, max_new_tokens=6)
    assert beam_search(model, tokenizer, prompts_of(["x"]), settings) == [""]
    with torch.no_grad():
        model.lm_head.weight[empty_line] = 0.8
    assert beam_search(model, tokenizer, prompts_of(["x"]), settings)[0].startswith("AAAA")


def test_a_text_learnt_by_heart_is_decoded() -> None:
    """Training and decoding agree on separator, leading space and end token."""
    rows = Dataset.from_dict({"source": ["a : 1", "b : 22"], "target": ["One .", "Two, too."]})
    examples = causal.encode(rows, TOKENIZER, 96)
    model = decoder(width=32).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        causal.loss(model, causal.collate(examples, TOKENIZER)).backward()
        optimizer.step()
    settings = DecodeConfig(beams=3, max_new_tokens=20)
    texts = beam_search(model, TOKENIZER, prompts_of(rows["source"][:]), settings)
    assert texts == rows["target"][:]
