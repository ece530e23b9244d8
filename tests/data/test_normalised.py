"""What makes two samples the same row."""

from grail.data.samples import Sample, normalised


def test_case_and_spacing_and_the_system_turn_make_no_difference():
    context = (("system", "Be brief."), ("user", "One\n two"), ("assistant", "THREE"))
    one = Sample("d", "unlearn", "val", 7, " Four ", "Fi\tve", context)
    text = normalised(one)
    assert (text.prompt, text.completion) == ("one two three four", "fi ve")
    assert (text.key, text.part) == ("d.unlearn.val.7", "val")
    other = Sample("e", "retain", "train", 0, "one two  three FOUR", "fi ve")
    assert normalised(other).row == text.row
    assert normalised(Sample("d", "unlearn", "val", 7, "Four", "Fi ve")).row != text.row
