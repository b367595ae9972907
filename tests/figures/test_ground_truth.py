"""Planted latents stand by their dictionary, shares by their test; what follows the letters looks otherwise."""

from causal_tables import falsification_table, planted_table
from charts import svg_named
from drawn import all_rows, marks, texts

from sae_rna import figures


def test_every_latent_is_a_cell_of_every_dictionary_with_its_number():
    svg = svg_named("planted latents")
    assert len(marks(svg, "rect mark")) == len(planted_table())
    assert texts(svg).count("0.90") == texts(svg).count("0.66") == 4
    assert {"TopK", "frozen decoder", "3-mers, mean of 64"} <= set(texts(svg))


def test_shares_on_the_side_of_the_letters_are_told_apart_and_verdicts_stand_beside_them():
    rows = all_rows(figures.falsification(falsification_table()))
    own = rows[(rows.source == "SAE") & rows.share.notna()].drop_duplicates(["setting", "concept", "test"])
    kinds = own.groupby("concept").kind.agg(list)
    assert set(kinds["stem"]) == {"as the structure"} and len(kinds["end"]) == 2
    assert kinds["bulge"][:4] == ["as the letters", "as the letters", "as the structure", "as the letters"]
    words = texts(svg_named("falsification"))
    assert (
        words.count("keeps its name") == words.count("loses its name") == words.count("cannot be told") == 2
    )
    assert words.count("must fall") == words.count("must stay") == 2


def test_shares_too_large_for_the_axis_stand_at_its_end_and_say_what_they_are():
    labels = [label for label in marks(svg_named("falsification"), "point") if "2.000" in label]
    assert len(labels) == 2
    table = falsification_table()
    assert all_rows(figures.falsification(table)).share.max() == 1.5
    assert "control" not in set(all_rows(figures.falsification(table[table.source == "SAE"])).get("kind"))
