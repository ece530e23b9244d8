"""What the script on removal that lasts counts in a run's answers."""

import json

import lasting


def test_answers_that_are_no_sentence_are_counted(tmp_path):
    texts = [
        "She is old.",
        "1999.",
        "2012-01-01 2012-01-01",
        "He is a man, he is a man.",
        "12 a",
        "",
    ]
    values = [{"side": "unlearn", "generation": text} for text in texts]
    values.append({"side": "retain", "generation": "7"})
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "unlearned.json").write_text(json.dumps({"values": values}))
    assert lasting.answers(tmp_path) == {"asked": 6, "bare": 4, "loops": 2}
