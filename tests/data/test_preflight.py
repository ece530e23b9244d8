import random
import time
from difflib import SequenceMatcher
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grail.config.run import parse_config
from grail.data.preflight import Finding, check_samples
from grail.data.samples import Sample, load_samples

DATA = Path(__file__).parents[2].parent / "shared" / "data"
SETS = (
    "knowundo_privacy",
    "copyright_fairytale",
    "lume_bio",
    "lume_creative",
    "lume_pii",
    "tofu_authors",
)
WORDS = [f"{first}{second}" for first in "bdgk" for second in ("alo", "eno", "iro", "ulo")]


def make(side, rows, part="train", domain="d"):
    return [
        Sample(domain, side, part, number, prompt, completion)
        for number, (prompt, completion) in enumerate(rows)
    ]


def rows(name, count):
    """Make rows that are not alike, within a name or across names."""
    draw = random.Random(name)
    return [(" ".join(draw.choices(WORDS, k=12)) + f" {name}{n}", f"{n}") for n in range(count)]


def check(*groups):
    return check_samples([sample for group in groups for sample in group])


def only(found, level):
    (finding,) = found
    assert finding.level == level
    return finding.text


def test_clean_samples_give_nothing():
    assert check(make("unlearn", rows("a", 20)), make("retain", rows("b", 20))) == []
    assert check() == []


# --- the same row on both sides


def test_rows_on_both_sides_are_an_error_with_keys_and_no_text():
    shared = [(f"SECRET {name} asks", f"SECRET {name} answer") for name in WORDS[:4]]
    changed = [(f" secret\n{p[7:].upper()} ", c.replace(" ", "\t")) for p, c in shared]
    unlearn, retain = [*rows("a", 6), *shared], [*rows("b", 6), *changed]
    text = only(check(make("unlearn", unlearn), make("retain", retain)), "error")
    assert "4 of the 10 rows of d.unlearn are also rows of d.retain" in text
    assert "d.unlearn.train.6 and d.retain.train.6; d.unlearn.train.7 and d.retain.train.7" in text
    assert "d.unlearn.train.8" in text
    assert "d.unlearn.train.9" not in text
    assert "secret" not in text.lower()
    assert "twice" not in text


def test_composed_and_decomposed_rows_are_the_same():
    one, other = ([(normalize(form, "Wo wohnt Renée?"), "Łódź")] for form in ("NFC", "NFD"))
    assert one != other
    assert "1 of the 1 rows" in only(check(make("unlearn", one), make("retain", other)), "error")


def test_the_same_file_twice_is_guessed():
    same = rows("a", 10)
    text = only(check(make("unlearn", same), make("retain", same)), "error")
    assert "10 of the 10 rows" in text
    assert text.endswith("Did you give the same file twice?")


def test_a_retain_side_that_contains_the_small_unlearn_side_is_guessed_too():
    text = only(check(make("unlearn", rows("a", 2)), make("retain", rows("a", 50))), "error")
    assert text.endswith("Did you give the same file twice?")


@pytest.mark.parametrize(("one", "other"), [("train", "val"), ("val", "train"), ("val", "val")])
def test_sides_are_compared_over_all_parts(one, other):
    found = check(make("unlearn", rows("a", 5), one), make("retain", rows("a", 5), other))
    assert f"d.unlearn.{one}.0 and d.retain.{other}.0" in only(found, "error")


def test_sides_are_compared_across_domains_and_equal_sides_are_not():
    same, own = rows("a", 5), rows("b", 5)
    found = check(make("unlearn", same, domain="x"), make("retain", same, domain="y"))
    assert "x.unlearn are also rows of y.retain" in only(found, "error")
    assert check(make("retain", own, domain="x"), make("retain", own, domain="y")) == []
    assert check(make("unlearn", own, domain="x"), make("unlearn", own, domain="y")) == []


def test_the_same_question_with_another_answer_is_no_error():
    found = check(
        make("unlearn", [("Where is it?", "a")]), make("retain", [("where is  it?", "b")])
    )
    text = only(found, "warning")
    assert "1 of the 1 prompts of d.unlearn are nearly the same as prompts of d.retain" in text
    assert "d.unlearn.train.0 and d.retain.train.0" in text


def test_earlier_turns_count_and_the_system_turn_does_not():
    def sample(side, *context):
        return Sample("d", side, "train", 0, "go on", "yes", context)

    different = [sample("unlearn", ("user", "a")), sample("retain", ("user", "b"))]
    assert check_samples(different) == []
    same = [sample("unlearn", ("system", "a")), sample("retain", ("system", "b"))]
    assert "1 of the 1 rows" in only(check_samples(same), "error")


# --- held-out rows


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("place", [("unlearn", "d"), ("retain", "d"), ("unlearn", "e")])
def test_one_held_out_row_that_is_a_row_of_another_part_is_an_error(part, place):
    side, domain = place
    held = [*rows("h", 9), ("SECRET ask", "SECRET answer")]
    known = [*rows("a", 9), ("secret  ask", "Secret answer")]
    text = only(check(make("unlearn", held, "heldout"), make(side, known, part, domain)), "error")
    assert text == (
        "1 of the 10 rows of d.unlearn.heldout are also rows of another part, e.g. "
        f"d.unlearn.heldout.9 and {domain}.{side}.{part}.9. Held-out rows must be rows that no "
        "model has seen: drop them."
    )


def test_held_out_rows_are_compared_in_no_other_way():
    """They may ask what a retain row asks: no model is trained on them."""
    held = make("unlearn", [("Where is it?", "here")], "heldout")
    assert check(held, make("retain", [("where is  it?", "there")])) == []
    assert check(held, make("unlearn", [("Where was it?", "here")])) == []


def test_held_out_rows_that_repeat_are_counted():
    text = only(check(make("unlearn", [*rows("h", 3), *rows("h", 2)], "heldout")), "warning")
    assert text == "2 rows of d.unlearn.heldout repeat an earlier row of it."


# --- the same row in train and val


@pytest.mark.parametrize(
    ("shared", "level"), [(1, "warning"), (4, "warning"), (5, "error"), (10, "error")]
)
def test_rows_in_train_and_val(shared, level):
    train, val = rows("a", 40), rows("a", shared) + rows("b", 10 - shared)
    text = only(check(make("retain", train), make("retain", val, "val")), level)
    assert f"{shared} of the 10 rows of d.retain.val are also rows of d.retain.train" in text
    assert "e.g. d.retain.val.0 and d.retain.train.0" in text
    assert ("same file twice" in text) == (level == "error")


def test_a_val_that_contains_all_of_train_is_an_error():
    found = check(make("unlearn", rows("a", 3)), make("unlearn", rows("a", 50), "val"))
    assert "3 of the 50 rows" in only(found, "error")


# --- duplicates


def test_duplicates_are_counted_per_source():
    train = [*rows("a", 5), *rows("a", 2), *rows("a", 1)]
    val = [*rows("b", 5), *rows("b", 1)]
    found = check(make("unlearn", train), make("unlearn", val, "val"))
    assert found == [
        Finding("warning", "3 rows of d.unlearn.train repeat an earlier row of it."),
        Finding("warning", "1 row of d.unlearn.val repeats an earlier row of it."),
    ]


def test_duplicates_in_the_general_text_are_counted_and_it_has_no_sides():
    general = [
        Sample("general", "general", "train", n, p, c)
        for n, (p, c) in enumerate(rows("a", 2) + rows("a", 1))
    ]
    found = check(general, make("unlearn", rows("a", 2)))
    assert "1 row of general.general.train repeats" in only(found, "warning")


def test_errors_come_first():
    same = rows("a", 4)
    found = check(make("unlearn", same + same[:1]), make("retain", rows("b", 9) + same[:1]))
    assert [finding.level for finding in found] == ["error", "warning"]


# --- nearly the same prompts


def similar(one, other):
    found = check(make("unlearn", [(one, "a")]), make("retain", [(other, "b")]))
    assert all(finding.level == "warning" for finding in found)
    return bool(found)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("What is Ann's email?", "what is ann's EMAIL", True),
        ("What is Ann's email?", "What is Ben's email?", False),
        ("Is Ann older than Ben?", "Is Ben older than Ann?", False),
        (" ".join(WORDS), " ".join([*WORDS, "extra"]), True),
        (" ".join(WORDS), " ".join([*WORDS, "extra", "words", "here"]), False),
        (" ".join(WORDS), " ".join(reversed(WORDS)), False),
        ("वह दिन कहाँ है?", "वह दिन, कहाँ है", True),
        ("वह दिन कहाँ है?", "वह दान कहाँ है?", False),
        ("安娜的电子邮件地址是什么", "安娜的电子邮件地址是什么。", True),
        ("安娜的电子邮件地址是什么", "本杰明的生日是哪一天", False),
        ("???", "???", True),
        ("???", "!!!", False),
        ("", "", False),
        ("", " ", False),
    ],
)
def test_what_is_nearly_the_same(one, other, expected):
    assert similar(one, other) == expected
    assert similar(other, one) == expected


def test_near_duplicates_are_counted_with_three_pairs():
    base = rows("a", 5)
    near = [(f"{prompt.replace(' ', ', ')}?!", "other") for prompt, _ in base]
    unlearn, retain = make("unlearn", rows("b", 3) + base), make("retain", rows("c", 7) + near)
    text = only(check(unlearn, retain), "warning")
    assert "5 of the 8 prompts of d.unlearn" in text
    assert text.count(" and d.retain.train.") == 3
    assert "d.unlearn.train.3 and d.retain.train.7" in text


def by_definition(one, other):
    words, others = one.split(), other.split()
    both, either = set(words) & set(others), set(words) | set(others)
    same_order = SequenceMatcher(None, words, others, autojunk=False).ratio() >= 0.9
    return 10 * len(both) >= 9 * len(either) and same_order


TEXT = st.lists(st.sampled_from(WORDS[:14]), min_size=1, max_size=24).map(" ".join)


@settings(deadline=None, max_examples=150)
@given(st.lists(TEXT, min_size=1, max_size=8), st.lists(TEXT, min_size=1, max_size=8), st.data())
def test_the_index_finds_what_comparing_all_pairs_finds(prompts, others, data):
    """The pruned search must equal comparing every pair; edits make close pairs likely."""
    for prompt in prompts:
        words = prompt.split()
        words[data.draw(st.integers(0, len(words) - 1))] = data.draw(st.sampled_from(WORDS))
        others = [*others, " ".join(words)]
    unlearn = make("unlearn", [(prompt, "a") for prompt in prompts])
    retain = make("retain", [(other, "b") for other in others])
    found = [f.text for f in check(unlearn, retain) if "nearly the same" in f.text]
    expected = sum(any(by_definition(one, other) for other in others) for one in prompts)
    assert (int(found[0].split()[0]) if found else 0) == expected


@pytest.mark.parametrize("shared", [3, 11, 60])
def test_two_thousand_rows_a_side_take_seconds(shared):
    """Templates with one name each are the worst case for an index of words."""
    frame = [f"word{n}" for n in range(shared)]
    sides = [
        make(side, [(" ".join([*frame, f"{side}{n}"]), f"{n}") for n in range(2000)])
        for side in ("unlearn", "retain")
    ]
    start = time.perf_counter()
    check(*sides)
    assert time.perf_counter() - start < 5  # measured: below 1


# --- real data sets


@pytest.mark.parametrize("name", SETS)
def test_real_data_sets_give_no_error(name):
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip("the folder shared is not beside the repository")
    sides = {
        side: {part: str(folder / f"{stem}_{part}.jsonl") for part in ("train", "val")}
        for side, stem in (("unlearn", "unlearn"), ("retain", "retention"))
    }
    samples = load_samples(parse_config({"domains": {name: sides}, "output": "out"}))
    assert len(samples) >= 600
    start = time.perf_counter()
    assert [finding for finding in check_samples(samples) if finding.level == "error"] == []
    assert time.perf_counter() - start < 2
