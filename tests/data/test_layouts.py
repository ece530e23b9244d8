"""Keys of a row: in any case, by a mapping, mistyped."""

import pytest

from grail.data.layouts import columns_of, turns_of, with_keys
from grail.errors import InputError

TURNS = (("user", "Who?"), ("assistant", "She."))


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"Prompt": "Who?", "COMPLETION ": "She."}, {}),
        ({"prompt": "Who?", "answer": "She."}, {}),
        ({"question": "Who?", "completion": "She.", "prompt_id": "3"}, {}),
        ({"Frage": "Who?", "Antwort": "She."}, {"prompt": "frage", "completion": "Antwort"}),
        ({"prompt": "x", "q": "Who?", "a": "She."}, {"prompt": "q", "completion": "a"}),
        ({"Question": "Who?", "Answer": "She."}, {"prompt": "q", "completion": "a"}),
    ],
)
def test_the_keys_of_a_row_are_found(row, columns):
    assert turns_of(with_keys(row, columns)) == TURNS


NAMED = {"Frage": "x", "Rück meldung": "y"}


@pytest.mark.parametrize(
    ("row", "columns", "words"),
    [
        ({"q": "x"}, {"prompt": "q", "completion": "a"}, r"data\.columns\.completion: .* no 'a'"),
        (
            NAMED,
            {"prompt": "q", "completion": "b"},
            r"no 'q' among 2 columns \(Frage, Rück meldung",
        ),
        (NAMED, {"prompt": "Frage", "completion": "b"}, r"no 'b' among 2 columns \(Frage, Rück"),
        ({"Who?": "x", "Tom": "y"}, {"prompt": "q", "completion": "b"}, r"among 2 columns\.$"),
        ({"prompt": "x", "Prompt": "y"}, {}, "'prompt' is given twice, in other cases"),
        ({"prompt": "x", "paraphrase": "y"}, {}, "Did you mean 'paraphrases'"),
        ({"prompt": "x", "anwser": "y"}, {}, "Did you mean 'answer'. Beside 'prompt' stands"),
        ({"prompt": "x", "z": "y"}, {}, "Beside 'prompt' stands 'completion' or 'answer'"),
        ({"compeltion": "x", "prompt": "y"}, {}, "Did you mean 'completion'"),
        ({"text": "x", "lables": "y"}, {}, "Did you mean 'labels'"),
    ],
)
def test_what_is_wrong_with_the_keys_is_told(row, columns, words):
    with pytest.raises(InputError, match=words):
        turns_of(with_keys(row, columns))


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"Prompt": "x", "Answer": "y"}, {}),
        ({"messages": []}, {}),
        (
            {"Instruction": 1, "Response": 2, "id": 3},
            {"prompt": "Instruction", "completion": "Response"},
        ),
        ({"Frage": 1, "Antwort": 2}, {"prompt": "Frage", "completion": "Antwort"}),
        ({"Frage": 1, "Antwort": 2, "id": 3}, {}),
        ({"id": 1, "response": 2, "question": 3}, {"prompt": "question", "completion": "response"}),
    ],
)
def test_columns_are_told_by_their_names_or_by_being_two(row, columns):
    assert columns_of([row]) == columns
    assert columns_of([]) == {}
