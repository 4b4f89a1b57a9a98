"""Beam search at several ranks: one input and one rank at a time, or as this project does it."""

from collections.abc import Callable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import dylora
from dylora.suite.config import DecodeConfig
from dylora.training.decode import beam_search

RANKS, INPUTS, PROMPT = (1, 2, 3, 4), 16, 40  # E2E's four ranks and its inputs' length in tokens
SEARCH = DecodeConfig(beams=10, max_new_tokens=24)


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each byte, and an end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<end>": 0} | {letter: i for i, letter in enumerate(letters, start=1)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")


def searches() -> dict[str, Callable[[], None]]:
    """The same texts in both ways, by a random decoder of a third of GPT-2's width."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=8000, n_embd=256, n_layer=6, n_head=8)
    model = dylora.adapt(GPT2LMHeadModel(config).eval(), ["c_attn:q,v"], max_rank=max(RANKS))
    words = tokenizer()
    prompts = torch.randint(1, 250, (INPUTS, PROMPT)).tolist()

    def together() -> None:
        for rank in RANKS:
            with dylora.merged(model, rank):
                beam_search(model, words, prompts, SEARCH)

    def one_by_one() -> None:
        for rank in RANKS:
            for prompt in prompts:
                with dylora.at_rank(model, rank):
                    beam_search(model, words, [prompt], SEARCH)

    return {"batches, ranks merged": together, "one input, one rank": one_by_one}
