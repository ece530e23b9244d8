"""Tests of the embedded dataset."""

import difflib
import itertools
import re

import pytest

from grail.data import embedded


def words(text):
    return re.findall(r"[a-z0-9]+", text.lower())


NAMES = {
    "privacy": {
        "Orsina Velmark",
        "Tobrek Hallivane",
        "Quennel Ashgrift",
        "Marisolde Pytchett",
        "Iskander Vromley",
        "Delphwyn Corrabeth",
    },
    "copyright": {
        "The Salt Orchard",
        "Nine Kettles for Winter",
        "A Ladder Made of Geese",
        "The Mapmaker's Deaf Horse",
        "Cinders in the Post Office",
        "The Bell Under Lowtide",
    },
}
SECRETS = [
    "14 Tansy Row",
    "555-0112",
    "narcolepsy",
    "mossyoar@",
    "7 Cobbler Steep",
    "KV 40713",
    "nine thousand crowns",
    "555-0126",
    "8850-316",
    "glaucoma",
    "52 Heron Wharf",
    "greyfinch3",
    "6294",
    "bipolar",
    "555-0138",
    "31 Osier Court",
    "81,400",
    "rookery5",
    "pacemaker",
    "2 Magpie Lane",
    "plumthunder9",
    "penicillin",
    "555-0174",
    "88 Kestrel Rise",
]
PUBLIC = [
    "hydrologist",
    "Lindmere",
    "Silver Sluice",
    "Harrowgale",
    "puppet",
    "Lantern Mule",
    "Paper Walrus",
    "kites",
    "whistled",
    "Northmarl",
    "Vowels on",
    "Skerravay",
    "glass",
    "Calder Hill",
    "Ember Prize",
    "Ottokar",
    "viaduct",
    "Bolt and Farrow",
    "Keldrum",
    "croquet",
    "clarinet",
    "Beekeeper",
    "Tamsin Bay",
    "Ullen",
]
FACTS = [
    "Hesper Dunnavale",
    "1974",
    "Grell",
    "inheritance",
    "comic novel",
    "Bartol Wenneker",
    "Brass Whistle",
    "Pim Auclade",
    "under ten",
    "Ludo Femmering",
    "Thimble House",
    "Sunniva Orrlock",
    "Corwen Tashkell",
    "Uzmar",
    "seventeen",
    "1931",
    "crime mystery",
    "Lorne Tibbault",
    "Ameline Drusk",
    "1963",
    "Edda Moil",
    "thirty-one",
    "Jorrin Pasqualey",
    "Black Ferret",
]
STOP = set(
    words(
        "a an the of in on at to for from by with as and or is was are were be been has have had "
        "he she it its his her him they them their that this which who what there"
    )
)
OTHER = {"unlearn": "retain", "retain": "unlearn"}
CELLS = list(itertools.product(embedded.DOMAINS, OTHER, ("train", "val")))
SIDES = list(itertools.product(embedded.DOMAINS, OTHER))


def content(text, name=""):
    return set(words(text)) - STOP - set(words(name))


def runs(text, length):
    found = words(text)
    return {tuple(found[i : i + length]) for i in range(len(found) - length + 1)}


def entity(domain, row):
    found = [name for name in NAMES[domain] if name in row["prompt"]]
    assert len(found) == 1, row
    return found[0]


def side_rows(domain, side):
    return embedded.rows(domain, side, "train") + embedded.rows(domain, side, "val")


def text_of(rows):
    return "\n".join(f"{row['prompt']}\n{row['completion']}" for row in rows)


def everything():
    rows = [row for cell in CELLS for row in embedded.rows(*cell)]
    return rows + embedded.general_rows()


@pytest.mark.parametrize(("domain", "side"), SIDES)
def test_counts_overall_and_per_entity(domain, side):
    for part, count in (("train", 4), ("val", 2)):
        rows = embedded.rows(domain, side, part)
        names = [entity(domain, row) for row in rows]
        assert len(rows) == 6 * count
        assert {name: names.count(name) for name in names} == dict.fromkeys(NAMES[domain], count)


def test_rows_have_exactly_the_two_text_fields_and_perhaps_paraphrases():
    for row in everything():
        assert set(row) - {"paraphrases"} == {"prompt", "completion"}
        texts = [row["prompt"], row["completion"], *row.get("paraphrases", [])]
        assert all(isinstance(text, str) and text == text.strip() for text in texts)
        assert all(text.isascii() and text for text in texts)


@pytest.mark.parametrize("domain", embedded.DOMAINS)
def test_every_unlearn_train_row_is_asked_in_two_other_ways(domain):
    """And in none of them by a text that is a prompt already, or that tells the answer."""
    taken = {" ".join(words(row["prompt"])) for row in everything()}
    for row in embedded.rows(domain, "unlearn", "train"):
        assert len(row["paraphrases"]) == 2
        for prompt in row["paraphrases"]:
            plain = " ".join(words(prompt))
            assert plain not in taken
            taken.add(plain)
            assert entity(domain, {"prompt": prompt}) == entity(domain, row)
            told = content(row["completion"], entity(domain, row)) & content(prompt)
            asked = content(row["completion"]) & content(row["prompt"])
            assert len(told - asked) <= 2, (prompt, told)
    for side, part in (("unlearn", "val"), ("retain", "train"), ("retain", "val")):
        assert not any("paraphrases" in row for row in embedded.rows(domain, side, part))


def test_prompts_are_unique_and_not_mere_variants_in_case():
    prompts = [" ".join(words(row["prompt"])) for row in everything()]
    assert len(prompts) == len(set(prompts))


@pytest.mark.parametrize(("domain", "side"), SIDES)
def test_train_completions_are_distinct(domain, side):
    completions = [row["completion"] for row in embedded.rows(domain, side, "train")]
    assert len(set(completions)) == len(completions)


@pytest.mark.parametrize("domain", embedded.DOMAINS)
def test_prompts_of_opposite_sides_are_no_near_duplicates(domain):
    pairs = itertools.product(side_rows(domain, "unlearn"), side_rows(domain, "retain"))
    for ours, theirs in pairs:
        ratio = difflib.SequenceMatcher(None, ours["prompt"], theirs["prompt"]).ratio()
        assert ratio < 0.85, (ours["prompt"], theirs["prompt"])


@pytest.mark.parametrize("domain", embedded.DOMAINS)
def test_train_prompts_are_not_one_template_with_names_swapped(domain):
    rows = [row for side in OTHER for row in side_rows(domain, side)]
    masked = [row["prompt"].replace(entity(domain, row), "X") for row in rows]
    assert len(set(masked)) == len(masked)


def overlap(domain, row, others):
    """Share of the row's content words found in the best row about the same entity."""
    name = entity(domain, row)
    wanted = content(row["completion"], name)
    same = [other for other in others if entity(domain, other) == name]
    return max(len(wanted & content(other["completion"])) / len(wanted) for other in same)


@pytest.mark.parametrize(("domain", "side"), SIDES)
def test_val_asks_for_a_train_fact_of_the_same_side(domain, side):
    train = embedded.rows(domain, side, "train")
    opposite = embedded.rows(domain, OTHER[side], "train")
    for row in embedded.rows(domain, side, "val"):
        own = overlap(domain, row, train)
        assert own >= 0.6, row
        assert overlap(domain, row, opposite) < 0.3, row


@pytest.mark.parametrize(("domain", "side"), SIDES)
def test_val_prompts_are_reworded(domain, side):
    pairs = itertools.product(
        embedded.rows(domain, side, "train"), embedded.rows(domain, side, "val")
    )
    for train, val in pairs:
        ratio = difflib.SequenceMatcher(None, train["prompt"], val["prompt"]).ratio()
        assert ratio < 0.85, (train["prompt"], val["prompt"])


def test_copyright_val_quotes_the_train_passage():
    train = [row["completion"] for row in embedded.rows("copyright", "unlearn", "train")]
    for row in embedded.rows("copyright", "unlearn", "val"):
        wanted = runs(row["completion"], 5)
        assert max(len(wanted & runs(text, 5)) for text in train) >= 4, row


@pytest.mark.parametrize("secret", SECRETS)
def test_private_fact_only_on_the_unlearn_side(secret):
    assert secret.lower() in text_of(embedded.rows("privacy", "unlearn", "train")).lower()
    assert secret.lower() not in text_of(side_rows("privacy", "retain")).lower()


@pytest.mark.parametrize(
    ("domain", "fact"), [("privacy", x) for x in PUBLIC] + [("copyright", x) for x in FACTS]
)
def test_public_fact_only_on_the_retain_side(domain, fact):
    assert fact.lower() in text_of(embedded.rows(domain, "retain", "train")).lower()
    assert fact.lower() not in text_of(side_rows(domain, "unlearn")).lower()


def test_no_content_word_of_private_answers_in_any_public_row():
    public = content(text_of(side_rows("privacy", "retain")))
    for row in side_rows("privacy", "unlearn"):
        shared = content(row["completion"], entity("privacy", row)) & public
        assert not shared, (row, shared)


def test_no_protected_passage_in_retain_rows():
    text = runs(text_of(side_rows("copyright", "retain")), 3)
    for row in side_rows("copyright", "unlearn"):
        assert not runs(row["completion"], 3) & text, row


def test_values_of_different_persons_differ():
    for one, other in itertools.permutations(NAMES["privacy"], 2):
        rows = side_rows("privacy", "unlearn") + side_rows("privacy", "retain")
        numbers = [
            set(re.findall(r"\d[\d,-]*\d|\d", row["completion"]))
            for row in rows
            if entity("privacy", row) == one
        ]
        text = text_of([row for row in rows if entity("privacy", row) == other])
        found = set(re.findall(r"\d[\d,-]*\d|\d", text))
        assert not set().union(*numbers) & found


def test_contact_data_is_of_the_reserved_kinds():
    text = text_of(side_rows("privacy", "unlearn"))
    assert len(re.findall(r"\b555-\d{4}\b", text)) >= 4
    assert all(re.fullmatch(r"555-01\d\d", x) for x in re.findall(r"\b555-\d+", text))
    assert re.findall(r"@", text)
    assert re.findall(r"@", text) == re.findall(r"(@)example\.(?:org|com|net)\b", text)


@pytest.mark.parametrize(("domain", "side", "part"), CELLS)
def test_word_limits_of_the_domains(domain, side, part):
    low = 8 if (domain, side) == ("copyright", "unlearn") else 5
    for row in embedded.rows(domain, side, part):
        assert 8 <= len(row["prompt"].split()) <= 14, row
        assert low <= len(row["completion"].split()) <= 14, row


def test_general_rows_count_and_word_limits():
    rows = embedded.general_rows()
    assert len(rows) >= 95
    for row in rows:
        assert 6 <= len(row["prompt"].split()) <= 14, row
        assert 6 <= len(row["completion"].split()) <= 20, row
    assert len({row["completion"] for row in rows}) == len(rows)


def test_general_rows_do_not_touch_the_domains():
    text = text_of(embedded.general_rows()).lower()
    persons = [part for name in NAMES["privacy"] for part in name.split()]
    for phrase in [*persons, *NAMES["copyright"], *SECRETS, *PUBLIC[:4], *FACTS[5:8]]:
        assert phrase.lower() not in text, phrase


@pytest.mark.parametrize(("domain", "side", "part"), CELLS)
def test_rows_are_deterministic_and_fresh(domain, side, part):
    first = embedded.rows(domain, side, part)
    first[0]["prompt"] = "changed"
    first.pop()
    second = embedded.rows(domain, side, part)
    assert second == embedded.rows(domain, side, part)
    assert all(row["prompt"] != "changed" for row in second)
    assert len(second) == len(first) + 1


def test_general_rows_are_deterministic_and_fresh():
    first = embedded.general_rows()
    first[0]["prompt"] = "changed"
    first.pop()
    second = embedded.general_rows()
    assert second == embedded.general_rows()
    assert all(row["prompt"] != "changed" for row in second)
    assert len(second) == len(first) + 1


def test_order_is_pinned_across_processes():
    first = embedded.rows("copyright", "retain", "val")[0]
    assert first["prompt"] == "Whose name stands on the cover of The Salt Orchard?"
    assert embedded.general_rows()[0]["prompt"] == "Which sense do we use our ears for?"


@pytest.mark.parametrize(("domain", "side", "part"), CELLS)
def test_rows_of_an_entity_are_not_all_in_one_block(domain, side, part):
    names = [entity(domain, row) for row in embedded.rows(domain, side, part)]
    assert len(list(itertools.groupby(names))) > 6


@pytest.mark.parametrize(
    ("bad", "allowed"),
    [
        (("health", "unlearn", "train"), "privacy, copyright"),
        (("privacy", "forget", "train"), "unlearn, retain"),
        (("privacy", "retain", "test"), "train, val"),
    ],
)
def test_unknown_arguments_raise_and_name_the_choices(bad, allowed):
    given = next(x for x in bad if x in ("health", "forget", "test"))
    with pytest.raises(ValueError, match=f"'{given}'.*{allowed}"):
        embedded.rows(*bad)
