"""Every method that needs no server, on the texts that break text programs."""

import pytest
from pydantic import TypeAdapter

from data_schemas.errors import EnvironmentProblem
from stages.synthesize.gates.facts import changed_numbers
from stages.synthesize.method import Failure
from stages.synthesize.methods import build_method
from stages.synthesize.methods_config import MethodConfig

KINDS = (
    "swap", "deletion", "synonyms", "insertion", "sentence_shuffling", "keyboard", "ocr", "casing", "punctuation",
    "word_dropout", "span_masking", "infilling",
)  # fmt: skip
PLAIN = "The old mill of the village stood by the river. It was the first one that the men had built in 1843."
TEXTS = {
    "empty": "",
    "blank": " \n\t\r\n\u3000",
    "one word": "mill",
    "one letter": "a",
    "emoji": "👩‍👩‍👧‍👦 the mill 🏴󠁧󠁢󠁥󠁮󠁧󠁿 was 👍🏽 there and the river 🇳🇴 too.",
    "right to left": "הטחנה הישנה עמדה ליד הנהר. المطحنة القديمة كانت هنا!",
    "mixed directions": "The mill \u202eסוף\u202c of the river \u2067abc\u2069 is old.",
    "crlf": PLAIN.replace(". ", ".\r\n\r\n") + "\r\n",
    "nul": PLAIN.replace("mill", "mi\0ll\x01"),
    "format characters": "^The/the<det>$ [old] {mill} @of \\ #the *village* ~ stood <b>by</b> the river.",
    "sentinels": "The mill <extra_id_0> of the <mask> village <extra_id_1> stood there. xqazx was the man.",
    "code": "def f(x):\n    return {'a': x}  # the sum of the two\n\nfor (i = 0; i < n; i++) {\n\ta[i] = b;\n}\n",
    "addresses": "See https://a.example/b?c=d#e, www.b.example and ann@mill.example, or C:\\the\\old or /the/old/mill.",
    "combining": "e\u0301" * 50 + " \u0301\u0302 " + "a" + "\u0300" * 500,
    "surrogate pairs": "𝕋𝕙𝕖 𝕞𝕚𝕝𝕝 𠀀𠀁。𠀂は。",
    "thai": "โรงสีเก่าอยู่ริมแม่น้ำ มันเป็นโรงแรก",
    "separators": "The mill.\u2028It was old.\u0085The end.\x0cThe river.\x0bThe men.",
    "table": "| the old | the mill |\n|---|---|\n| 1 | 2 |\n",
    "backticks": "```" + "the mill " * 20,
    "tags": "<" * 300 + "the mill is there & the river" + "&" * 300,
}


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_texts_give_a_text_or_a_reason(kind):
    method = _build(kind)
    names, texts = list(TEXTS), list(TEXTS.values())
    outputs = method.rewrite(texts, range(len(texts)))
    assert outputs == method.rewrite(texts, range(len(texts))), "the same again"
    for name, text, output in zip(names, texts, outputs, strict=True):
        assert isinstance(output, Failure) or (output.strip() and output != text), name
        if isinstance(output, str) and kind not in ("span_masking", "infilling"):
            assert output.count("\n") == text.count("\n") and output.count("\0") == text.count("\0"), name
        if isinstance(output, Failure):
            assert output.reason and not output.may_succeed_later
    assert isinstance(outputs[names.index("empty")], Failure) and isinstance(outputs[names.index("blank")], Failure)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in ("span_masking", "infilling", "ocr", "keyboard")]
)
@pytest.mark.parametrize("name", ["code", "addresses"])
def test_code_and_addresses_are_not_touched(kind, name):
    for seed in range(5):
        (output,) = _build(kind, rate=1.0).rewrite([TEXTS[name]], [seed])
        if isinstance(output, str):
            kept = ["https://a.example/b?c=d#e", "ann@mill.example", "C:\\the\\old", "/the/old/mill"]
            for part in kept if name == "addresses" else TEXTS["code"].splitlines():
                assert part in output


NUMBERS = [
    "The village stood near 1 000 people and the river rose by 10² metres in the summer of the year.",
    "They added ½ cup of sugar and ¾ cup of flour to the old bowl before the guests of the man came.",
    "The temperature fell to −5 °C and then to -12 °C when the cold wind came from the north.",
    "At 12:30 the slow train with 3/4 of the passengers left the small station for the coast.",
    "The release v2.0.1 of the program was slower than the old release v1.9.10 of the same year.",
    "The firm paid $1.13bn (£600m) and R$ 5 million for the old works near the large harbour.",
    "The meeting on 2004-05-06 was at 10:30 in Room B-52 with H₂O and CO₂ as the main subjects.",
    "They sold 20% of the shares for 5 per cent more than ₩500 and USD 5 in the old market.",
    "There were ٣٫٥ million people and १२३ houses in the old town near the wide river.",
]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("span_masking", "infilling", "ocr")])
def test_numbers_of_every_form_stay_with_their_units(kind):
    settings = {"swap": 0.5, "deletion": 0.3, "synonyms": 0.5, "insertion": 0.3}
    method, made = _build(kind, settings.get(kind)), 0
    for seed in range(5):
        for text, output in zip(NUMBERS, method.rewrite(NUMBERS, [seed] * len(NUMBERS)), strict=True):
            if isinstance(output, str):
                made += 1
                assert changed_numbers(text, output).amount == 0, output
    assert made or kind == "sentence_shuffling"


def _build(kind, rate=None):
    settings = {"kind": kind} | ({"alpha": rate} if rate and kind in KINDS[:4] else {})
    try:
        return build_method(TypeAdapter(MethodConfig).validate_python(settings))
    except EnvironmentProblem as error:
        pytest.skip(str(error))
