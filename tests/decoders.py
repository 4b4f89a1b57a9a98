"""Tiny random decoders with tokenizers to match, for tests of training and decoding text."""

from collections.abc import Sequence

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

END = "<|endoftext|>"


def byte_tokenizer(end: str | None = END, empty_line: bool = False) -> PreTrainedTokenizerFast:
    """One token per byte after the end token 0, like GPT-2's before any merge.

    `empty_line` adds a token for two line ends, which GPT-2's tokenizer has as well.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {END: 0} | {letter: i for i, letter in enumerate(alphabet, start=1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if empty_line:
        tokenizer.add_tokens([AddedToken("\n\n", normalized=False)])
    marks = {} if end is None else {"bos_token": end, "eos_token": end}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks)


def decoder(
    family: str = "gpt2", vocabulary: int = 258, seed: int = 0, width: int = 16, layers: int = 2
) -> PreTrainedModel:
    """A random model whose choices are clear: weights drawn large, numbers kept in float64."""
    torch.manual_seed(seed)
    model: PreTrainedModel
    if family == "gpt2":
        gpt2 = GPT2Config(
            vocab_size=vocabulary,
            n_embd=width,
            n_layer=layers,
            n_head=2,
            n_positions=96,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.5,
            resid_pdrop=0.1,
            embd_pdrop=0.1,
            attn_pdrop=0.1,
        )
        model = GPT2LMHeadModel(gpt2)
    else:
        llama = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=2 * width,
            max_position_embeddings=96,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.5,
        )
        model = LlamaForCausalLM(llama)
    return model.double().eval()


TOKENIZER = byte_tokenizer()
SOURCES = ["a : 1", "b : 22 | c : 3", "", "d", "a : 1", "longer and longer : 4", "e : 5 | f"]


def prompts_of(sources: Sequence[str] = SOURCES) -> list[list[int]]:
    """What decoding starts from, written out: one token per byte and the end token."""
    return [[*TOKENIZER(source)["input_ids"], 0] for source in sources]
