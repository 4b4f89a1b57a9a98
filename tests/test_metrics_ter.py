"""TER as tercom 0.7.25 and as pyter3 compute it."""

import random

import pytest

from dylora.metrics.ter import EditDistance, State, pyter, pyter_rate, tercom, tercom_edits


def words(text: str) -> list[str]:
    return text.split()


# Moved, as two blocks: "near the river" and "cheap"; put in: "very"; left out: "family".
HYPOTHESIS = words("near the river the old mill is a pub with very food that is cheap")
REFERENCE = words("the old mill is a cheap family pub near the river with food that is")


def plain_distance(text: list[str], others: list[str]) -> int:
    row = list(range(len(others) + 1))
    for count, word in enumerate(text, start=1):
        above, row = row, [count]
        for column, other in enumerate(others):
            row.append(min(above[column] + (word != other), above[column + 1] + 1, row[-1] + 1))
    return row[-1]


def shuffled_pairs(count: int, vocabulary: int, longest: int) -> list[tuple[list[str], list[str]]]:
    """A random text, and the same with blocks moved, words dropped and one put in."""
    draw = random.Random(7)
    letters = [chr(ord("a") + index) for index in range(vocabulary)]
    pairs = []
    for _ in range(count):
        reference = [draw.choice(letters) for _ in range(draw.randint(1, longest))]
        text = list(reference)
        for _ in range(draw.randint(1, 3)):
            start, stop = sorted(draw.randint(0, len(text)) for _ in range(2))
            block = text[start:stop]
            del text[start:stop]
            place = draw.randint(0, len(text))
            text[place:place] = block
        text = [word for word in text if draw.random() > 0.1]
        text.insert(draw.randint(0, len(text)), draw.choice(letters))
        pairs.append((text, reference))
    return pairs


def test_the_bit_parallel_distance_is_the_edit_distance() -> None:
    for text, reference in shuffled_pairs(300, vocabulary=4, longest=70):
        assert EditDistance(reference)(text) == plain_distance(text, reference)


def test_a_distance_continues_from_a_traced_word() -> None:
    distance = EditDistance(REFERENCE)
    trace: list[State] = []
    whole = distance(HYPOTHESIS, trace=trace)
    assert [state.distance for state in trace][-1] == whole
    assert distance(HYPOTHESIS[4:], trace[3]) == whole


def test_no_order_of_the_words_goes_below_the_bound() -> None:
    for text, reference in shuffled_pairs(100, vocabulary=5, longest=12):
        distance = EditDistance(reference)
        assert distance.bound(text) <= min(distance(text), distance(sorted(text)))


def test_tercom_equals_sacrebleu_on_random_short_texts() -> None:
    lib_ter = pytest.importorskip("sacrebleu.metrics.lib_ter")
    pairs = shuffled_pairs(400, vocabulary=8, longest=12)
    ours = [tercom_edits(text, reference) for text, reference in pairs]
    theirs = [lib_ter.translation_edit_rate(text, reference)[0] for text, reference in pairs]
    assert ours == theirs
    unshifted = [EditDistance(reference)(text) for text, reference in pairs]
    assert sum(edits < other for edits, other in zip(ours, unshifted, strict=True)) > 100


def test_a_moved_block_is_one_edit_however_long() -> None:
    assert tercom_edits(words("d e f a b c"), words("a b c d e f")) == 1
    assert tercom_edits(words("b c d a"), words("a b c d")) == 1


def test_tercom_does_not_move_more_than_ten_words() -> None:
    one, other = [f"w{index}" for index in range(12)], [f"v{index}" for index in range(12)]
    # Twelve words past three: the three move instead. Twelve past twelve: two shifts.
    assert tercom_edits([*one, "x", "y", "z"], ["x", "y", "z", *one]) == 1
    assert tercom_edits([*one, *other], [*other, *one]) == 2


def test_two_shifts_an_insertion_and_a_deletion_are_four_edits() -> None:
    assert tercom_edits(HYPOTHESIS, REFERENCE) == 4
    # pyter moves a block only to its index in the reference, so it finds no use for these shifts.
    assert pyter_rate(HYPOTHESIS, REFERENCE) == pytest.approx(6 / 15)


def test_tercom_takes_the_lowest_edits_over_the_mean_length() -> None:
    references = [[words("a b c d"), words("a b")], [words("x y z")]]
    # 1 edit to "a b", 0 to "x y z"; mean lengths 3 and 3.
    assert tercom(references, [words("a b c"), words("x y z")]) == pytest.approx(100 / 6)


def test_an_empty_output_costs_every_word_of_the_reference() -> None:
    assert tercom([[words("a b c")]], [[]]) == 100
    assert tercom([[words("a b c"), ["a"]]], [[]]) == pytest.approx(50)  # 1 edit, mean length 2
    assert pyter([[words("a b c"), ["a"]]], [[]]) == 100


def test_pyter_equals_its_definition_by_brute_force() -> None:
    """Shift the longest common run to its reference index while the distance falls; of equally
    good shifts the word list that sorts last."""

    def shifts(text: list[str], reference: list[str]) -> list[list[str]]:
        found = []
        for start in range(len(text)):
            for target in range(len(reference)):
                size = 0
                while (
                    start + size < len(text)
                    and target + size < len(reference)
                    and text[start + size] == reference[target + size]
                ):
                    size += 1
                if size and start != target:
                    rest = text[:start] + text[start + size :]
                    rest[target:target] = text[start : start + size]
                    found.append(rest)
        return found

    for text, reference in shuffled_pairs(150, vocabulary=3, longest=8):
        current, count = text, 0
        while True:
            moved = [(-plain_distance(new, reference), new) for new in shifts(current, reference)]
            best = max(moved, default=(-len(current) - len(reference), current))
            if -best[0] >= plain_distance(current, reference):
                break
            current, count = best[1], count + 1
        expected = (count + plain_distance(current, reference)) / len(reference)
        assert pyter_rate(text, reference) == pytest.approx(expected), (text, reference)


def test_pyter_is_the_mean_over_sentences_not_over_words() -> None:
    references = [[words("a b c d e f g h")], [["x"]]]
    assert pyter(references, [words("a b c d e f g h"), ["y"]]) == 50
    assert tercom(references, [words("a b c d e f g h"), ["y"]]) == pytest.approx(100 / 9)


def test_pyter_can_pass_1_but_not_beside_an_empty_reference() -> None:
    assert pyter([[words("a")]], [words("x y z")]) == 300
    assert pyter([[words("a"), []]], [words("x y z")]) == 100
