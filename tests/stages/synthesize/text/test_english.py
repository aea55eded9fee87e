"""English and its neighbors, in sentences with as many words as possible that English has too."""

import pytest

from stages.synthesize.text.english import is_english

OTHERS = {
    "German": (
        "Die alte Mühle stand am Fluss, und so war in der Nähe ein Haus, in dem ein Mann an seinem Tisch so lange "
        "schrieb, bis er am Abend alles fertig hatte. Was will man da noch sagen, wenn im Winter alles so still "
        "ist?"
    ),
    "Spanish": (
        "El viejo molino estaba junto al río y no me dejaron entrar a la casa, pero he visto que a los hombres no "
        "les gusta la vida en el campo y me han dicho que no has de tener miedo."
    ),
    "French": (
        "Le vieux moulin se trouvait près de la rivière, on ne savait pas pourquoi il était là, mais on a dit à la"
        " fin que les hommes ont été contents de me voir et que la vie est une chanson."
    ),
    "Dutch": (
        "De oude molen stond in het dorp en was van een man die er in woonde; over de rivier was een brug en we "
        "had den daar of hier een huis, so we are."
    ),
    "Danish": (
        "Den gamle mølle stod ved floden, og han var den første der kom for at se om den var god at have, men her "
        "er der ikke en."
    ),
    "Portuguese": (
        "O velho moinho ficava perto do rio e a casa me parecia muito boa, mas as pessoas do campo no fim do dia "
        "não me viam."
    ),
    "Chinese": "老磨坊在河边，今天天气很好，我们去看看吧。",
}


@pytest.mark.parametrize("language", OTHERS)
def test_neighbors_are_told_apart(language):
    assert not is_english(OTHERS[language])


def test_english_is_english():
    assert is_english("The old mill stood by the river, and so there was a house in which a man wrote at his table.")
    assert is_english("WE WERE TOLD THAT THE MILL, WHICH IS OLD, HAS TO BE SOLD.")
    assert is_english("old mill") and not is_english("alte Mühle")
