"""Words in every script, against their definition character by character."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grail.data.words import words_of

LATIN = st.text(
    st.characters(min_codepoint=1, max_codepoint=0x24F, exclude_characters="\u0130")
    | st.sampled_from("\u2018\u2019\u201c\u201d\u2013\u2014\u2026\u20ac\u1ea1\u1ef9 ")
)


@given(LATIN)
def test_latin_words_are_runs_of_letters_and_digits(text):
    """The definition is that of the standard library; combining marks are not in these blocks."""
    composed = unicodedata.normalize("NFC", text)
    assert words_of(text) == re.findall(r"[^\W_]+", composed.lower())


@given(st.text())
def test_composed_and_decomposed_text_have_the_same_words(text):
    composed, decomposed = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    for read in (words_of, lambda text: words_of(text, signs=True)):
        assert read(composed) == read(decomposed)


@given(st.text())
def test_with_signs_every_base_character_is_in_a_word(text):
    kept = "".join(words_of(text, signs=True))
    for character in unicodedata.normalize("NFC", text).lower():
        assert (
            character in kept or character.isspace() or unicodedata.category(character)[0] in "MCZ"
        )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("दिन, दान।", ["दिन", "दान"]),
        ("שָׁלוֹם עוֹלָם", ["שָׁלוֹם", "עוֹלָם"]),
        ("كَتَبَ كُتُب", ["كَتَبَ", "كُتُب"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),  # noqa: RUF001
        ("한국어 말", ["한국어", "말"]),
        ("ใช้GPT4ดี", ["ใ", "ช้", "gpt4", "ดี"]),
        ("မာစာ", ["မာ", "စာ"]),
        ("コーヒー", ["コ", "ー", "ヒ", "ー"]),
        ("二〇二五年", ["二", "〇", "二", "五", "年"]),  # noqa: RUF001
        ("ꦗꦮ", ["ꦗ", "ꦮ"]),
        ("I ❤️ 👨‍👩‍👧🇩🇪🇫🇷!", ["i", "❤️", "👨‍👩‍👧", "🇩🇪", "🇫🇷"]),
        ("1️⃣ ñ̂", ["1️⃣", "ñ̂"]),
        ("caf\ufffd ©", ["caf"]),
    ],
)
def test_words_by_hand(text, words):
    assert words_of(text) == [unicodedata.normalize("NFC", word) for word in words]
