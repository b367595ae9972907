"""Every figure fits the page, speaks, leaves its table alone and refuses one that cannot be drawn."""

import functools
import re

import pandas as pd
import pytest
from charts import (
    CHARTS,
    KNOT,
    LENGTHS,
    STEPS,
    chains_table,
    confounds_table,
    controls_table,
    curves_table,
    doses_table,
    effects_table,
    falsification_table,
    fidelity_table,
    funnel_table,
    interventions_table,
    layers_table,
    logos_table,
    masked_table,
    mutations_table,
    pairing_table,
    places_table,
    planted_table,
    probe_table,
    readers_table,
    recurrence_table,
    relations_table,
    scores_table,
    sparse_probe_table,
    sparsity_table,
    steered_table,
    svg_named,
    svg_of,
    tracks_table,
    training_table,
    tuned_table,
    types_table,
    volcano_table,
)
from contact_tables import contacts_table, maps_table
from drawn import texts

from sae_rna import figures
from sae_rna.figures import theme

#: Figures that say in words that there is nothing to draw: a result, too.
_MAY_BE_EMPTY = figures.type_features, figures.type_effects, figures.falsification, figures.lineage


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_is_valid_fits_the_page_and_speaks(name):
    chart = CHARTS[name]()
    spec = chart.to_dict()
    assert len(spec["description"]) > 30
    assert '"tooltip"' in chart.to_json()
    assert spec["config"]["background"] == "white"
    assert all(len(rows) <= theme.MAXIMUM_ROWS for rows in spec["datasets"].values())
    svg = svg_named(name)
    assert float(svg.get("width")) <= 720
    assert not {"NaN", "undefined", "null"} & set(texts(svg))


def test_charts_leave_their_tables_as_they_were():
    for draw, table in [
        (functools.partial(figures.layer_sparsity, shown="topk"), layers_table(3)),
        (figures.type_sparsity, sparsity_table(3)),
        (figures.type_probe, probe_table()),
        (figures.training, training_table(2, 5)),
        (figures.element_scores, scores_table(3)),
        (functools.partial(figures.type_features, layers=[1, 4]), types_table(4)),
        (figures.feature_tracks, tracks_table(KNOT)),
        (figures.length_distribution, LENGTHS.copy()),
        (figures.masked_accuracy, masked_table()),
        (figures.stem_readers, readers_table(3)),
        (figures.sparse_probe, sparse_probe_table()),
        (figures.overview, STEPS.copy()),
        (figures.element_scores, scores_table(3).assign(explained=True)),
        (functools.partial(figures.type_features, layers=[1]), types_table(3).assign(explained=True)),
        (figures.controls, controls_table()),
        (figures.confounds, confounds_table()),
        (figures.planted_latents, planted_table()),
        (figures.falsification, falsification_table()),
        (figures.fidelity, fidelity_table(3)),
        (figures.recurrence, recurrence_table(3)),
        (figures.contact_maps, maps_table()),
        (figures.contact_precision, contacts_table()),
        (figures.type_effects, effects_table(3)),
        (figures.pairing_effects, pairing_table()),
        (figures.mutation_map, mutations_table()),
        (figures.interventions, interventions_table()),
        (figures.dose_response, doses_table()),
        (figures.funnel, funnel_table()),
        (figures.lead_logos, logos_table()),
        (functools.partial(figures.relations, control=relations_table(1)), relations_table()),
        (figures.logo, steered_table()),
        (figures.tuned_methods, tuned_table()),
        (figures.tuned_examples, curves_table()),
        (figures.lineage, chains_table()),
        (functools.partial(figures.volcano, a="A", b="B"), volcano_table()),
        (functools.partial(figures.firing_places, a="A", b="B"), places_table()),
    ]:
        before = table.copy()
        draw(table)
        pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    "draw, table",
    [
        (figures.overview, STEPS),
        (figures.retained_features, layers_table(2)),
        (functools.partial(figures.layer_sparsity, shown="topk"), layers_table(2)),
        (figures.type_sparsity, sparsity_table(2)),
        (figures.type_probe, probe_table()),
        (figures.training, training_table(2, 3)),
        (figures.element_scores, scores_table(2)),
        (functools.partial(figures.type_features, layers=[1, 2]), types_table(2)),
        (figures.feature_tracks, tracks_table(KNOT)),
        (figures.masked_accuracy, masked_table()),
        (figures.stem_readers, readers_table(3)),
        (figures.sparse_probe, sparse_probe_table()),
        (figures.length_distribution, LENGTHS),
        (figures.controls, controls_table()),
        (figures.confounds, confounds_table()),
        (figures.planted_latents, planted_table()),
        (figures.falsification, falsification_table()),
        (figures.fidelity, fidelity_table(2)),
        (figures.recurrence, recurrence_table(2)),
        (figures.type_effects, effects_table(2)),
        (figures.pairing_effects, pairing_table()),
        (figures.mutation_map, mutations_table()),
        (figures.interventions, interventions_table()),
        (figures.dose_response, doses_table()),
        (figures.funnel, funnel_table()),
        (figures.logo, steered_table()),
        (figures.tuned_methods, tuned_table()),
        (figures.tuned_examples, curves_table()),
        (figures.lineage, chains_table()),
        (functools.partial(figures.volcano, a="A", b="B"), volcano_table()),
    ],
)
def test_a_table_without_rows_or_without_a_column_is_refused(draw, table):
    function = getattr(draw, "func", draw)
    if function not in _MAY_BE_EMPTY:
        with pytest.raises(ValueError, match=f"{function.__name__}: .*no rows"):
            draw(table.head(0))
    column = table.columns[0]
    with pytest.raises(KeyError, match=column):
        draw(table.drop(columns=column))


def test_too_many_rows_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="feature_tracks: 5,200 .*5,000.*aggregate"):
        figures.feature_tracks(tracks_table("." * 5200))


@pytest.mark.parametrize(
    "draw, table",
    [
        (functools.partial(figures.type_features, layers=[2], kind="surviving"), types_table(2).head(0)),
        (figures.type_effects, effects_table(2).head(0)),
        (figures.contact_maps, maps_table().head(0)),
        (figures.contact_precision, contacts_table().head(0)),
        (figures.type_effects, effects_table(2).assign(surviving=0)),
        (figures.falsification, falsification_table().head(0)),
        (figures.lineage, chains_table().head(0)),
        (functools.partial(figures.firing_places, a="A", b="B"), places_table().head(0)),
        (figures.lead_logos, logos_table().head(0)),
        (functools.partial(figures.relations, control=relations_table(0)), relations_table(0)),
    ],
)
def test_a_result_that_is_none_is_said_in_words(draw, table):
    assert any(
        re.match("No (surviving )?feature|No two families|The checkpoint has no head", words)
        for words in texts(svg_of(draw(table)))
    )


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in CHARTS
        if name.startswith(("controls", "confounds", "fidelity", "recurrence", "type eff"))
    ],
)
def test_letters_on_figures_of_trust_are_ten_pixels_or_more(name):
    sizes = [
        float(element.get("font-size").removesuffix("px"))
        for element in svg_named(name).iter()
        if element.tag.endswith("}text")
    ]
    assert sizes and min(sizes) >= 10
