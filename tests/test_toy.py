"""The toy tasks: the same bytes everywhere, true labels, readable by the real tasks' loaders."""

import re
from pathlib import Path

import pytest
from task_yaml import task_config

from dylora.errors import UserError
from dylora.suite.config import PathsConfig
from dylora.tasks import load, toy

# If these change, so do all scores on toy tasks: change them only together with the tasks.
FOLDERS = {
    "toy_pair": "toy_pair-b4b8fa7cdf30",
    "toy_similarity": "toy_similarity-d9651aac56d7",
    "toy_e2e": "toy_e2e-1efad6c6a9d2",
}
KIND = "helped aided greeted welcomed thanked praised".split()  # noqa: SIM905
WATER = ("river", "stream", "lake", "pond", "harbour", "port", "beach")


def splits(name: str, folder: Path):
    return load(task_config(name), PathsConfig(cache=str(folder)))


@pytest.mark.parametrize("name", toy.TASKS)
def test_the_bytes_are_those_of_the_published_hash(name: str, tmp_path: Path) -> None:
    assert toy.write(name, tmp_path) == tmp_path / FOLDERS[name]


def test_a_second_write_leaves_the_files_alone_and_nothing_else_is_left(tmp_path: Path) -> None:
    folder = toy.write("toy_pair", tmp_path)
    times = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert toy.write("toy_pair", tmp_path) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == times
    assert list(tmp_path.iterdir()) == [folder]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(path: Path, content: bytes) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        toy.write("toy_pair", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_task_is_refused_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"toy_pear.*toy_pair, toy_similarity, toy_e2e"):
        toy.write("toy_pear", tmp_path)


def holds(sentence: str, claim: str) -> bool:
    """The truth of a claim, from the words and not from the generator's tables."""
    if claim == "It was a kind deed.":
        return any(f" {verb} " in sentence for verb in KIND)
    assert claim == "It was near water."
    return any(re.search(rf"(by|near|at|on) the {place}\b", sentence) for place in WATER)


def test_a_pair_is_an_entailment_exactly_when_its_claim_is_true(tmp_path: Path) -> None:
    for split in splits("toy_pair", tmp_path).values():
        for row in split:
            assert (row["label"] == 0) == holds(row["text_a"], row["text_b"]), row
        assert 0.45 < sum(split["label"]) / len(split) < 0.55


def test_similarity_is_the_weight_of_the_true_claims(tmp_path: Path) -> None:
    weights = {"It was a kind deed.": 3.0, "It was near water.": 2.0}
    for split in splits("toy_similarity", tmp_path).values():
        for row in split:
            claims = [f"{claim.strip()}." for claim in row["text_b"].split(".")[:-1]]
            assert sorted(claims) == sorted(weights)
            true = sum(weights[claim] for claim in claims if holds(row["text_a"], claim))
            assert row["label"] == true, row


def test_held_out_sentences_are_not_in_the_training_data(tmp_path: Path) -> None:
    for name in ("toy_pair", "toy_similarity"):
        data = splits(name, tmp_path)
        both = set(data["train"]["text_a"]) & set(data["validation"]["text_a"])
        assert len(both) < 0.02 * len(data["validation"]), name
    inns = splits("toy_e2e", tmp_path)
    assert not set(inns["train"]["source"]) & set(inns["test"]["source"])


def test_every_text_on_an_inn_names_all_its_attributes_and_no_others(tmp_path: Path) -> None:
    words = {value for values in toy.INN_VALUES.values() for value in values} - {"yes", "no"}
    data = splits("toy_e2e", tmp_path)
    assert {name: len(split) for name, split in data.items()} == {
        "train": 1500,
        "validation": 50,
        "test": 50,
    }
    for row in data["test"]:
        values = dict(part.split(" : ") for part in row["source"].split(" | "))
        assert len(row["references"]) == 3
        for text in row["references"]:
            assert values["name"] in text and values.get("near", "") in text
            said = words & set(re.findall(r"[a-z]+", text))
            assert said == words & set(values.values())
            family = {"yes": "family", "no": "quiet"}.get(values.get("familyFriendly", ""), "")
            assert family in text


def test_the_corpus_is_the_same_for_a_seed_and_another_for_another() -> None:
    for topic in ("village", "inns"):
        text = list(toy.corpus(topic, 1, 50))
        assert text == list(toy.corpus(topic, 1, 50))
        assert text != list(toy.corpus(topic, 2, 50))


def test_the_corpus_holds_no_labels_and_no_attribute_lists() -> None:
    for topic in ("village", "inns"):
        text = " ".join(toy.corpus(topic, 1, 500))
        assert not re.search(r"entail|[\[\]|\t:]", text)


def test_what_the_corpus_claims_is_true() -> None:
    """Pretraining on claims at random would teach nothing that the tasks need."""
    checked = 0
    for document in toy.corpus("village", 1, 200):
        sentence, *claims = (f"{part.strip()}." for part in document.split(".")[:-1])
        for claim in claims:
            opposite = {"It was a rude deed.": "It was a kind deed."}.get(claim)
            opposite = {"It was on dry land.": "It was near water."}.get(claim, opposite)
            if opposite is not None:
                assert not holds(sentence, opposite)
            elif claim in ("It was a kind deed.", "It was near water."):
                assert holds(sentence, claim)
            checked += claim.startswith("It was") and "done" not in claim
    assert checked > 100
