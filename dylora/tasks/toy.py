"""Toy tasks and toy text, made here, so that everything can run with no network and no data.

A small village and its inns: facts such as (big fox, chased, tired baker, by the river) are put
into English in several ways, with synonyms. From the same world come

- `corpus`: unlabeled text to pretrain the tiny models on;
- `toy_pair`: does a sentence entail a claim about its fact? (RTE's TSV format, classification);
- `toy_similarity`: how much of two claims does it support? (STS-B's TSV format, regression 0..5);
- `toy_e2e`: describe an inn from its attributes (E2E's CSV format, generation).

The files are in the original formats, so the loaders of the real tasks read them. All draws come
from `RandomState.random_sample`, whose stream numpy has frozen: the bytes are the same everywhere.

Why the claims are as they are: whether one holds is a property of one word of the sentence, and the
claim says which. Pretraining teaches a model to look such words up for a masked token, but not to
bring the answer to the first token, which the head reads: a head on the frozen model does badly,
and a change of low rank to queries and values, even of rank 1, can mend it.
"""

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from dylora.errors import UserError
from dylora.files import make_folder

T = TypeVar("T")
Meanings = list[tuple[str, ...]]  # the words of one meaning may stand for each other
Fact = tuple[int, ...]  # for each of SLOTS the index of a meaning
Inn = dict[str, str]  # attribute -> value, in the order of E2E's meaning representations


def _meanings(text: str) -> Meanings:
    return [tuple(group.split("/")) for group in text.split(", ")]


ADJECTIVES = _meanings(
    "big/large, small/little, fast/quick, happy/glad, angry/cross, clever/smart, tired/weary, "
    "rich/wealthy"
)
PEOPLE = _meanings(
    "farmer, baker, doctor/physician, teacher, sailor/seaman, soldier, thief/robber, child/kid"
)
ANIMALS = _meanings("fox, dog/hound, cat, horse, wolf, rabbit/bunny, donkey/mule, pig/hog")
KIND_DEEDS = _meanings("helped/aided, greeted/welcomed, thanked, praised")
RUDE_DEEDS = _meanings("chased/pursued, scared/frightened, pushed/shoved, robbed")
DRY_PLACES = _meanings(
    "in the forest/in the woods, at the market/at the fair, in the garden, on the road"
)
WET_PLACES = _meanings(
    "by the river/by the stream, near the lake/near the pond, at the harbour/at the port, "
    "on the beach"
)
SLOTS = (
    ADJECTIVES,
    PEOPLE + ANIMALS,
    RUDE_DEEDS + KIND_DEEDS,
    ADJECTIVES,
    PEOPLE + ANIMALS,
    DRY_PLACES + WET_PLACES,
)
RENDERINGS = (  # the slots in the order of SLOTS: 0 and 1 act, 3 and 4 are acted on
    "The {0} {1} {2} the {3} {4} {5}.",
    "The {3} {4} was {2} by the {0} {1} {5}.",
    "It was {5} that the {0} {1} {2} the {3} {4}.",
    "It was {5} that the {3} {4} was {2} by the {0} {1}.",
)


@dataclass(frozen=True)
class Claim:
    """What can be said of the meaning in one slot: by its half of the slot's list of meanings."""

    slot: int
    first_half: str
    second_half: str

    def holds(self, fact: Fact) -> bool:
        """Whether `second_half` is true of the fact; otherwise `first_half` is."""
        return fact[self.slot] >= len(SLOTS[self.slot]) // 2


WHO = Claim(1, "A person did it.", "An animal did it.")
WHOM = Claim(4, "It was done to a person.", "It was done to an animal.")
HOW = Claim(2, "It was a rude deed.", "It was a kind deed.")
WHERE = Claim(5, "It was on dry land.", "It was near water.")

INN_NAMES = (
    "Golden Silver Red Black White Green Blue Merry Jolly Lucky Royal Crooked",
    "Lion Crown Bell Anchor Swan Barrel Rose Wheel Star Oak Ship Stag",
)
INN_VALUES = {  # E2E's attributes with the village's values
    "eatType": ["inn", "tavern", "bakery", "alehouse"],
    "food": ["fish", "soup", "cheese", "pies", "stew", "cake"],
    "priceRange": ["cheap", "fair", "dear"],
    "customer rating": ["poor", "decent", "great"],
    "area": ["harbour", "market", "valley", "village"],
    "familyFriendly": ["yes", "no"],
}


class Draw:
    """Draws from a stream that is the same on every platform and with every version of numpy."""

    def __init__(self, *seed: int) -> None:
        self._state = np.random.RandomState(seed)

    def index(self, below: int) -> int:
        return int(self._state.random_sample() * below)

    def one(self, items: Sequence[T]) -> T:
        return items[self.index(len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """`count` different items in a random order."""
        left = list(items)
        return [left.pop(self.index(len(left))) for _ in range(count)]


def make_fact(draw: Draw) -> Fact:
    """A fact whose two actors and their two properties differ."""
    adjectives = draw.some(range(len(SLOTS[0])), 2)
    nouns = draw.some(range(len(SLOTS[1])), 2)
    verb, place = draw.index(len(SLOTS[2])), draw.index(len(SLOTS[5]))
    return (adjectives[0], nouns[0], verb, adjectives[1], nouns[1], place)


def state(draw: Draw, fact: Fact) -> str:
    """The fact as a sentence: one of the renderings, a random word for each meaning."""
    words = [draw.one(SLOTS[slot][meaning]) for slot, meaning in enumerate(fact)]
    return draw.one(RENDERINGS).format(*words)


def make_inn(draw: Draw) -> Inn:
    """An inn with its name, what it is, and two to five further attributes."""
    name, near = (" ".join(draw.one(part.split()) for part in INN_NAMES) for _ in range(2))
    values = {key: draw.one(choices) for key, choices in INN_VALUES.items()} | {"near": near}
    others = [key for key in values if key != "eatType"]
    keep = {"eatType", *draw.some(others, draw.one((2, 3, 4, 5)))}
    return {"name": name} | {key: value for key, value in values.items() if key in keep}


def describe(draw: Draw, inn: Inn) -> str:
    """All attributes of the inn in words, in one of several orders."""
    who = {"yes": "family", "no": "quiet"}.get(inn.get("familyFriendly", ""))
    kind = " ".join(word for word in (inn.get("priceRange"), who, inn["eatType"]) if word)
    kind = f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
    near = f" near the {inn['near']}" if "near" in inn else ""
    area = f" in the {inn['area']}" if "area" in inn else ""
    food = inn.get("food")
    serves = draw.one((f" that serves {food}", f" with good {food}")) if food else ""
    opening = draw.one(
        (
            f"The {inn['name']} is {kind}{area}{near}{serves}.",
            f"There is {kind} called the {inn['name']}{area}{near}{serves}.",
        )
    )
    rating = inn.get("customer rating")
    rated = draw.one((f" Its rating is {rating}.", f" It is rated {rating}.")) if rating else ""
    return opening + rated


def corpus(topic: str, seed: int, documents: int) -> Iterator[str]:
    """Unlabeled text about the `village` or its `inns`, one short document at a time.

    Every document says the same thing in two ways: a model of this size then learns within a
    minute to look words up elsewhere in its context.
    """
    draw = Draw(seed, 0)
    for _ in range(documents):
        if topic == "village":
            fact = make_fact(draw)
            claims = draw.some((WHO, WHOM, HOW, WHERE), 2)
            told = (c.second_half if c.holds(fact) else c.first_half for c in claims)
            yield " ".join((state(draw, fact), *told))
        else:
            inn = make_inn(draw)
            yield f"{describe(draw, inn)} {describe(draw, inn)}"


def _pair(draw: Draw, rows: int) -> str:
    """RTE's format; half of the rows, up to chance, are entailments."""
    lines = ["index\tsentence1\tsentence2\tlabel"]
    for index in range(rows):
        fact, claim = make_fact(draw), draw.one((HOW, WHERE))
        label = "entailment" if claim.holds(fact) else "not_entailment"
        lines.append(f"{index}\t{state(draw, fact)}\t{claim.second_half}\t{label}")
    return "\n".join(lines) + "\n"


def _similarity(draw: Draw, rows: int) -> str:
    """STS-B's format; the score is 5 times the weight of the claims that hold, 0.6 and 0.4."""
    names = "index genre filename year old_index source1 source2 sentence1 sentence2 score"
    lines = ["\t".join(names.split())]
    for index in range(rows):
        fact = make_fact(draw)
        score = 3.0 * HOW.holds(fact) + 2.0 * WHERE.holds(fact)
        claims = " ".join(claim.second_half for claim in draw.some((HOW, WHERE), 2))
        source = f"{index}\ttoy\tvillage\t2022toy\t{index:04d}\tnone\tnone"
        lines.append(f"{source}\t{state(draw, fact)}\t{claims}\t{score:.3f}")
    return "\n".join(lines) + "\n"


def _e2e(draw: Draw, inns: int) -> str:
    """E2E's format: a row per reference, three references for each of `inns` different inns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["mr", "ref"])
    seen: set[str] = set()
    while len(seen) < inns:
        inn = make_inn(draw)
        mr = ", ".join(f"{key}[{value}]" for key, value in inn.items())
        if mr not in seen:
            seen.add(mr)
            writer.writerows((mr, describe(draw, inn)) for _ in range(3))
    return text.getvalue()


@dataclass(frozen=True)
class Toy:
    """How to make a task's files: a text of so many items for each."""

    make: Callable[[Draw, int], str]
    files: dict[str, int]  # name -> number of rows (of inputs for generation)


TASKS = {
    "toy_pair": Toy(_pair, {"train.tsv": 2500, "dev.tsv": 400}),
    "toy_similarity": Toy(_similarity, {"train.tsv": 2500, "dev.tsv": 400}),
    "toy_e2e": Toy(_e2e, {"trainset.csv": 500, "devset.csv": 50, "testset_w_refs.csv": 50}),
}


def write(name: str, folder: Path) -> Path:
    """Write the task's files below `folder`, unless they are there and whole; their folder.

    Its name ends in a hash of the content. Raises UserError if there is no toy task of that name.
    """
    if name not in TASKS:
        raise UserError(f"no toy task {name!r}; there are {', '.join(TASKS)}")
    toy = TASKS[name]
    contents = {
        file: toy.make(Draw(seed, 1 + list(TASKS).index(name)), count).encode()
        for seed, (file, count) in enumerate(toy.files.items())
    }
    digest = hashlib.sha256(b"".join(contents.values())).hexdigest()[:12]

    def fill(unfinished: Path) -> None:
        for file, content in contents.items():
            (unfinished / file).write_bytes(content)

    return make_folder(folder / f"{name}-{digest}", fill)
