"""How the scorers cut text into words. Each function takes one line and returns its words."""

import re
from functools import cache
from string import ascii_lowercase, ascii_uppercase
from typing import Any

# Java, Perl (on bytes) and PTBTokenizer know only these as spaces; Python's str.split() knows more,
# which are mapped out of its sight (to a private-use plane) where the official scorer keeps them.
_ASCII_SPACES = " \t\n\r\f\v"
_OTHER_SPACES = {
    code: 0xF0000 + code
    for code in range(0x3001)
    if chr(code).isspace() and chr(code) not in _ASCII_SPACES
}
_ASCII_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
# What ends a line for Java's readers or for PTBTokenizer.
_LINE_END = re.compile(r"[\n\r\f\v\u2028\u2029]+")


def one_line(text: str) -> str:
    """The text with line ends as spaces and no space around: the external tools read lines."""
    return _LINE_END.sub(" ", text).strip()


def perl_words(text: str) -> list[str]:
    """As multi-bleu.perl -lc: it reads bytes, so only A-Z is lower-cased, É keeps its case."""
    return text.translate(_ASCII_LOWER).translate(_OTHER_SPACES).split()


def java_words(text: str) -> list[str]:
    """As tercom without -s: lower-cased, split at ASCII white space."""
    return text.lower().translate(_OTHER_SPACES).split()


def mteval_words(text: str) -> list[str]:
    """As mteval-v13a without -c: its punctuation rules, lower-cased."""
    return str(_mteval_tokenizer()(text)).lower().split()


def nonword_split(text: str) -> str:
    """Lower-cased, every character but letters, digits and _ apart (LoRA's --tokenize --lower)."""
    return " ".join(" ".join(re.split(r"(\W)", text.lower())).split())


def nltk_words(text: str) -> list[str]:
    """As nltk.word_tokenize, for `nonword_split` text.

    word_tokenize first splits sentences with a model that has to be downloaded. On such text that
    changes nothing: it matters for a full stop at the end of a word, and none is left there.
    """
    return list(_nltk_tokenizer().tokenize(text))


@cache
def _mteval_tokenizer() -> Any:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()


@cache
def _nltk_tokenizer() -> Any:
    from nltk.tokenize import NLTKWordTokenizer

    return NLTKWordTokenizer()
