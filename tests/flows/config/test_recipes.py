import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_schemas.errors import ConfigError
from flows.config.recipes import frontier, read_recipes


def written(tmp_path, text):
    path = tmp_path / "recipes.yaml"
    path.write_text(text)
    return str(path)


def test_named_recipes_and_a_grid_in_every_order(tmp_path):
    found = read_recipes(
        written(
            tmp_path,
            """
recipes:
  plain: [{kind: int8}]
grid:
  - [{kind: distill, layers: 2, width: 64}, null]
  - [{kind: prune, sparsity: 0.5}, {kind: prune, sparsity: 0.7}]
  - [{kind: int8}]
orders: true
""",
        )
    )
    # Two choices with a student, of three passes in 6 orders each; two without, of two passes in 2 orders each.
    assert len(found) == 1 + 2 * 6 + 2 * 2
    assert found["plain"] == ({"kind": "int8"},)
    assert "distill 2x64, prune 0.7, int8" in found and "int8, prune 0.5" in found
    assert len(set(map(str, found.values()))) == len(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no recipe"),
        ("recipes: [1]", "recipes: .*a recipe file has"),
        ("passes: {}", "passes: Extra inputs"),
        ("recipes: {a: [", "cannot read the recipes"),
    ],
)
def test_what_is_no_file_of_recipes_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        read_recipes(written(tmp_path, text))


def test_a_missing_file_is_refused():
    with pytest.raises(ConfigError, match=r"cannot read the recipes of none\.yaml"):
        read_recipes("none.yaml")


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_frontier_is_what_no_other_point_beats(points):
    best = frontier(points)
    for number, (x, y) in enumerate(points):
        beaten = any((a <= x and b <= y) and (a, b) != (x, y) for a, b in points)
        first = points.index((x, y)) == number
        assert (number in best) == (not beaten and first)
    assert [points[one][0] for one in best] == sorted(points[one][0] for one in best)
