"""Facts come back as they were, or the loss is noticed."""

from hypothesis import given
from hypothesis import strategies as st

from stages.synthesize.engines.shields import has_shield, shielded, unshielded


def test_by_hand():
    text, originals = shielded("Ada paid $3 to Bob.", [(0, 3), (9, 11), (15, 18)])
    assert text == "xqazx paid xqbzx to xqczx." and originals == ["Ada", "$3", "Bob"]
    assert unshielded("To Xqczx xqazx paid xqbzx.", originals) == "To Bob Ada paid $3."
    assert unshielded("xqazx paid to xqczx.", originals) is None, "lost"
    assert unshielded("xqazx xqbzx xqbzx xqczx", originals) is None, "doubled"
    assert unshielded("xqazx xqbzx xqczx xqdzx", originals) is None, "invented"
    assert has_shield("an XQabzx!") and not has_shield("xq1zx, quartz")


@given(st.lists(st.text(st.sampled_from("ab é\n"), min_size=1), max_size=60))
def test_shields_are_undone(parts):
    sentence, spans = "", []
    for index, part in enumerate(parts):
        if index % 2:
            spans.append((len(sentence), len(sentence) + len(part)))
        sentence += part + " "
    text, originals = shielded(sentence, spans)
    assert unshielded(text, originals) == sentence and unshielded(text.upper(), originals) is not None
