"""Translation edit rate, in the two forms that the published tables use.

`tercom` is the rate of the WebNLG challenge (tercom 0.7.25, Snover et al. 2006); `pyter` is the one
of WebNLG/GenerationEval (the package pyter3 0.3), which the tables of LoRA and DyLoRA report. Both
search greedily for block shifts that lower the edit distance, but over other candidates.

They are written here because pyter3 is no longer kept and sacrebleu's TER, which agrees with tercom
on texts of ordinary length, takes minutes for a test set, gives up after 1000 candidate shifts and
counts a missing reference as an empty one. Here every candidate costs one bit-parallel edit
distance (Myers 1999, Hyyrö 2003) from the first moved word on: a few integer operations per word
instead of one table row per word; and no shift is tried once none can pay.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MAX_SHIFT_SIZE = 10  # words; tercom's MAX_SHIFT_SIZE
MAX_SHIFT_DISTANCE = 50  # words; tercom's default for -d

Words = list[str]


class State(NamedTuple):
    """Column of the edit table after some hypothesis words; bit i stands for reference word i."""

    up: int  # one more reference word costs one edit more (Hyyrö's VP)
    down: int  # ... one edit less (VN)
    distance: int  # edits to the whole reference
    diagonal: int = 0  # same cost as one word less on both sides (D0)
    right: int = 0  # the last hypothesis word cost one edit (HP)


class EditDistance:
    """Levenshtein distance of word lists to one reference (not empty), integer steps per word.

    tercom itself prunes cells that are more than 20 edits worse than the best of their column. The
    distance is the same whenever it is at most 20 or the reference has at most 20 words, since no
    cell of an optimal path can then be pruned; beyond that a difference is very rare.
    """

    def __init__(self, reference: Words) -> None:
        self._positions: dict[str, int] = {}
        for index, word in enumerate(reference):
            self._positions[word] = self._positions.get(word, 0) | (1 << index)
        self._full = (1 << len(reference)) - 1
        self._counts = Counter(reference)
        self.reference = reference
        self.start = State(up=self._full, down=0, distance=len(reference))

    def __call__(
        self, words: Sequence[str], start: State | None = None, trace: list[State] | None = None
    ) -> int:
        """Distance of the words before `start` and `words`; `trace` collects the state per word."""
        full, positions = self._full, self._positions
        last = (full + 1) >> 1
        up, down, distance, *_ = start or self.start
        for word in words:
            match = positions.get(word, 0)
            diagonal = ((((match & up) + up) ^ up) | match | down) & full
            right = down | ((diagonal | up) ^ full)
            left = up & diagonal
            if right & last:
                distance += 1
            elif left & last:
                distance -= 1
            shifted = ((right << 1) | 1) & full
            up = ((left << 1) & full) | ((diagonal | shifted) ^ full)
            down = shifted & diagonal
            if trace is not None:
                trace.append(State(up, down, distance, diagonal, right))
        return distance

    def bound(self, words: Words) -> int:
        """The distance that no order of the words can go below."""
        shared = (self._counts & Counter(words)).total()
        return max(len(words), len(self.reference)) - shared


@dataclass(frozen=True)
class _Alignment:
    """One optimal alignment: where each reference word stands, and which words are errors."""

    position: list[int]  # per reference word: index of its hypothesis word, or of the one before
    reference_errors: list[bool]
    hypothesis_errors: list[bool]


def _align(hypothesis: Words, reference: Words, trace: list[State]) -> _Alignment:
    """Minimum edit alignment; of equal paths tercom's: first substitution, then insertion."""
    result = _Alignment([0] * len(reference), [True] * len(reference), [True] * len(hypothesis))
    h, r = len(hypothesis), len(reference)
    while h or r:
        same = bool(h and r) and hypothesis[h - 1] == reference[r - 1]
        if same or (h and r and not trace[h - 1].diagonal >> (r - 1) & 1):
            h, r = h - 1, r - 1
            result.position[r] = h
            result.reference_errors[r] = result.hypothesis_errors[h] = not same
        elif h and (r == 0 or trace[h - 1].right >> (r - 1) & 1):
            h -= 1
        else:
            r -= 1
            result.position[r] = h - 1
    return result


@dataclass(frozen=True)
class _Shift:
    """Move words start..end (inclusive) to behind word `target`; -1 is the front."""

    start: int
    end: int
    target: int

    def apply(self, words: Words) -> Words:
        start, stop = self.start, self.end + 1
        block = words[start:stop]
        if self.target < start:
            front = self.target + 1
            return words[:front] + block + words[front:start] + words[stop:]
        # A target inside the block means: that many words further on (tercom's PerformShift).
        after = self.target + 1 if self.target > self.end else stop + self.target - start
        return words[:start] + words[stop:after] + block + words[after:]


def _reference_phrases(hypothesis: Words, reference: Words) -> dict[tuple[str, ...], list[int]]:
    """Start positions of every reference phrase whose words all occur in the hypothesis."""
    known = set(hypothesis)
    phrases: dict[tuple[str, ...], list[int]] = {}
    for start in range(len(reference)):
        for stop in range(start + 1, min(start + MAX_SHIFT_SIZE, len(reference)) + 1):
            if reference[stop - 1] not in known:
                break
            phrases.setdefault(tuple(reference[start:stop]), []).append(start)
    return phrases


def _near(position: int, start: int, backwards: int = MAX_SHIFT_DISTANCE) -> bool:
    return position != start and -backwards <= position - start <= MAX_SHIFT_DISTANCE


def _targets(start: int, end: int, place: int, position: list[int]) -> Iterator[int]:
    """Where tercom tries to put words start..end when they match the reference from `place` on."""
    for offset in range(-1, end - start + 1):
        if offset == -1 and place == 0:
            yield -1
        elif position[place + offset] != start and (
            offset == 0 or position[place + offset] != position[place]
        ):
            yield position[place + offset]


def _candidates(
    words: Words, phrases: dict[tuple[str, ...], list[int]], alignment: _Alignment
) -> list[list[_Shift]]:
    """All shifts that tercom tries, by number of words moved (index 0: one word), in its order."""
    position = alignment.position
    shifts: list[list[_Shift]] = [[] for _ in range(MAX_SHIFT_SIZE)]
    for start, word in enumerate(words):
        single = phrases.get((word,), ())
        if not any(_near(position[place], start, MAX_SHIFT_DISTANCE + 1) for place in single):
            continue
        for end in range(start, min(start + MAX_SHIFT_SIZE, len(words))):
            places = phrases.get(tuple(words[start : end + 1]))
            if places is None:
                break
            if not any(alignment.hypothesis_errors[start : end + 1]):
                continue
            usable = [
                place
                for place in places
                if _near(position[place], start) and not start <= position[place] <= end
            ]
            for place in usable:
                if any(alignment.reference_errors[place : place + end - start + 1]):
                    shifts[end - start] += [
                        _Shift(start, end, target)
                        for target in _targets(start, end, place, position)
                    ]
            if not usable:
                break
    return shifts


def _best_shift(
    words: Words, trace: list[State], shifts: list[list[_Shift]], distance: EditDistance
) -> Words | None:
    """The words after the shift that tercom chooses, or None where no shift pays.

    The first shift to be found may gain nothing (one edit less for one shift); later ones must
    gain. Long blocks go first, and the search stops once shorter ones cannot do better.
    """
    best, edits, bound = None, trace[-1].distance, distance.bound(words)
    total = edits  # of the best so far: edits left, plus one for the shift
    for size in range(len(shifts), 0, -1):
        for shift in shifts[size - 1]:
            fixed = edits - total
            if total == bound + 1 or fixed > 2 * size or (best is not None and fixed == 2 * size):
                return best
            moved = shift.apply(words)
            same = min(shift.start, shift.target + 1)  # words before this one have not moved
            left = distance(moved[same:], trace[same - 1] if same else None)
            if left + 1 < total or (best is None and left + 1 == total):
                best, total = moved, left + 1
    return best


def tercom_edits(hypothesis: Words, reference: Words) -> int:
    """Shifts plus insertions, deletions and substitutions that turn one text into the other."""
    if not reference:
        return len(hypothesis)
    distance = EditDistance(reference)
    phrases = _reference_phrases(hypothesis, reference)
    words, shifts = hypothesis, 0
    while True:
        trace: list[State] = []
        edits = distance(words, trace=trace)
        if edits == distance.bound(words):
            return shifts + edits
        candidates = _candidates(words, phrases, _align(words, reference, trace))
        moved = _best_shift(words, trace, candidates, distance)
        if moved is None:
            return shifts + edits
        words = moved
        shifts += 1


def tercom(references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]) -> float:
    """Corpus TER in percent: sum of the lowest edits per input over the sum of mean lengths.

    `references[i]` are the tokenized references of input i; there must be one at least.
    """
    edits = sum(
        min(tercom_edits(hypothesis, reference) for reference in group)
        for group, hypothesis in zip(references, hypotheses, strict=True)
    )
    words = sum(sum(map(len, group)) / len(group) for group in references)
    return 100 * edits / words if words else 0.0


def _pyter_shifts(words: Words, reference: Words) -> Iterator[tuple[int, Words]]:
    """The hypothesis after each shift that pyter tries, and how many first words stay in place."""
    for start, word in enumerate(words):
        for target, other in enumerate(reference):
            if start == target or word != other:
                continue
            pairs = zip(words[start:], reference[target:], strict=False)
            length = next(
                (n for n, (mine, theirs) in enumerate(pairs) if mine != theirs),
                min(len(words) - start, len(reference) - target),
            )
            rest = words[:start] + words[start + length :]
            moved = rest[:target] + words[start : start + length] + rest[target:]
            yield min(start, target), moved


def pyter_rate(hypothesis: Words, reference: Words) -> float:
    """Edits over reference length as pyter3 counts them; 1 for an empty reference."""
    if not reference:
        return 1.0
    distance = EditDistance(reference)
    words, shifts = hypothesis, 0
    while True:
        trace: list[State] = []
        edits = distance(words, trace=trace)
        if edits == distance.bound(words):
            return (shifts + edits) / len(reference)
        # Of equally good shifts pyter takes the one whose word list sorts last.
        best = max(
            (-distance(moved[same:], trace[same - 1] if same else None), moved)
            for same, moved in _pyter_shifts(words, reference)
        )
        if -best[0] >= edits:
            return (shifts + edits) / len(reference)
        words = best[1]
        shifts += 1


def pyter(references: Sequence[Sequence[Words]], hypotheses: Sequence[Words]) -> float:
    """Mean over inputs of the lowest rate to any reference, in percent (GenerationEval)."""
    rates = [
        min(pyter_rate(hypothesis, reference) for reference in group)
        for group, hypothesis in zip(references, hypotheses, strict=True)
    ]
    return 100 * sum(rates) / len(rates)
