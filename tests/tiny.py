"""Tiny random models for tests: real transformers classes, a few thousand parameters."""

from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
    RobertaTokenizer,
)

from dylora.adapted import low_rank_parts

VOCABULARY = 50


def roberta(
    seed: int = 0, labels: int = 2, width: int = 32, intermediate: int = 48
) -> RobertaForSequenceClassification:
    torch.manual_seed(seed)
    config = RobertaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=intermediate,
        max_position_embeddings=40,
        num_labels=labels,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return RobertaForSequenceClassification(config).eval()


def gpt2(seed: int = 0, width: int = 32) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=width,
        n_layer=2,
        n_head=2,
        n_positions=64,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return GPT2LMHeadModel(config).eval()


def llama(seed: int = 0, width: int = 32) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48 if width == 32 else width,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def inputs(rows: int = 4, length: int = 9, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (rows, length), generator=generator)


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Give every B random values: a fresh adapter changes nothing, so would prove nothing."""
    generator = torch.Generator().manual_seed(seed)
    for part in low_rank_parts(model).values():
        with torch.no_grad():
            noise = torch.randn(part.lora_B.shape, generator=generator)
            part.lora_B.copy_(noise.to(part.lora_B.dtype))


def save_roberta(folder: Path, sentences: list[str]) -> Path:
    """A tiny random masked language model with its tokenizer, as a checkpoint folder."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = ByteLevelBPETokenizer()
    vocabulary.train_from_iterator(
        sentences, vocab_size=300, special_tokens=special, show_progress=False
    )
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.save_model(str(folder))
    tokenizer = RobertaTokenizer.from_pretrained(folder, model_max_length=62)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    RobertaForMaskedLM(config).save_pretrained(folder)
    return folder
