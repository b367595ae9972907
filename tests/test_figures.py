"""Figures: what is drawn is what the table says, and nothing is drawn from a table that cannot be right."""

import re
import xml.etree.ElementTree as ElementTree

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_rna import figures
from sae_rna.figures import theme
from sae_rna.figures.by_concept import clustered
from sae_rna.structure import ELEMENTS, element_string, pair_table

CLOVERLEAF = "(((((((..((((........))))((((((.......))))))...(((((.......))))))))))))."  # bpRNA_CRW_29143, a tRNA
KNOT = ".[[..(((((]]....)))))"  # a pseudoknot
LONG = "((((" * 15 + "." * 30 + "))))" * 15


def layers_table(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for architecture in ("relu-l1", "topk"):
        for layer in range(1, count + 1):
            deciles = np.sort(np.exp(rng.normal(-4, 1, 9)).clip(0, 1))
            rows.append(
                {"layer": layer, "architecture": architecture, "latents": 512, "retained": 300 + layer, "dead_share": 0.3, "l0": 16.0}
                | {"explained_variance": 0.8, "type_selectivity": 0.01 * layer if architecture == "topk" else np.nan}
                | {f"density_p{10 * i}": value for i, value in enumerate(deciles, 1)}
            )
    return pd.DataFrame(rows)


def training_table(count: int, steps: int) -> pd.DataFrame:
    frame = pd.MultiIndex.from_product([["topk", "relu-l1"], range(1, count + 1), range(steps)], names=["architecture", "layer", "step"])
    table = frame.to_frame(index=False)
    share = (table.step + 1) / steps
    return table.assign(tokens=1024 * (table.step + 1), loss=1 / share, l0=16.0, explained_variance=share, dead_share=0.5 * share)


def scores_table(count: int) -> pd.DataFrame:
    table = pd.MultiIndex.from_product([range(1, count + 1), list(ELEMENTS)], names=["layer", "element"]).to_frame(index=False)
    return table.assign(feature=7, f1=0.1 * table.layer.clip(upper=6), base_f1=0.25, null_p95=0.35, auroc=0.7, elements=1200)


def types_table(layers: int, types: int = 6, features: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    names = [f"type {i}" for i in range(types)]
    table = pd.MultiIndex.from_product([range(1, layers + 1), range(features), names], names=["layer", "feature", "type"]).to_frame(
        index=False
    )
    table["activation"] = rng.random(len(table)).round(4)
    table["rank"] = table.groupby(["layer", "type"]).activation.rank(ascending=False).astype(int)
    return table


def tracks_table(structure: str, record: str = "RNA one") -> pd.DataFrame:
    rng = np.random.default_rng(2)
    length = len(structure)
    return pd.DataFrame(
        {"record": record, "position": range(1, length + 1), "base": list("ACGU" * length)[:length], "bracket": list(structure)}
        | {"element": list(element_string(structure)), "activation": rng.random(length), "partner": pair_table(structure) + 1}
        | {"feature": 2053, "layer": 18}
    )


def masked_table() -> pd.DataFrame:
    table = pd.MultiIndex.from_product(
        [["held-out families", "natural"], ["model", "Markov", "most common base"], ["all", "paired", "unpaired"]],
        names=["set", "predictor", "positions"],
    ).to_frame(index=False)
    return table.assign(tokens=1000, accuracy=np.linspace(0.2, 0.7, len(table)))


STEPS = pd.DataFrame({"step": list("abcdef"), "title": "a title", "detail": "numbers that fill more than a single line of a box"})
LENGTHS = pd.DataFrame({"group": ["train", "train", "natural"], "length": [21, 29, 200], "records": [5, 7, 11]})
CHARTS = {
    "overview": lambda: figures.overview(STEPS),
    "overview of two": lambda: figures.overview(STEPS.head(2)),
    "retained features": lambda: figures.retained_features(layers_table(6)),
    "retained features of 33 layers": lambda: figures.retained_features(layers_table(33)),
    "layer sparsity": lambda: figures.layer_sparsity(layers_table(6)),
    "layer sparsity of 33 layers": lambda: figures.layer_sparsity(layers_table(33)),
    "training": lambda: figures.training(training_table(6, 20)),
    "element scores": lambda: figures.element_scores(scores_table(6)),
    "element scores of 33 layers": lambda: figures.element_scores(scores_table(33)),
    "type features": lambda: figures.type_features(types_table(6)),
    "tracks": lambda: figures.feature_tracks(pd.concat([tracks_table(CLOVERLEAF), tracks_table(LONG, "RNA two")])),
    "masked accuracy": lambda: figures.masked_accuracy(masked_table()),
    "lengths": lambda: figures.length_distribution(LENGTHS),
}


def svg_of(chart: alt.TopLevelMixin) -> ElementTree.Element:
    return ElementTree.fromstring(vl_convert.vegalite_to_svg(chart.to_dict(), vl_version="6.4"))


def marks(svg: ElementTree.Element, kind: str) -> list[str]:
    """What a screen reader says of every mark of a kind."""
    return [element.get("aria-label", "") for element in svg.iter() if element.get("aria-roledescription") == kind]


def texts(svg: ElementTree.Element) -> list[str]:
    return ["".join(element.itertext()) for element in svg.iter() if element.tag.endswith("}text")]


def all_rows(chart: alt.TopLevelMixin) -> pd.DataFrame:
    return pd.concat([pd.DataFrame(rows) for rows in chart.to_dict()["datasets"].values()], ignore_index=True)


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_is_valid_fits_the_page_and_speaks(name):
    chart = CHARTS[name]()
    spec = chart.to_dict()
    assert len(spec["description"]) > 30
    assert '"tooltip"' in chart.to_json()
    assert spec["config"]["background"] == "white"
    assert all(len(rows) <= theme.MAXIMUM_ROWS for rows in spec["datasets"].values())
    svg = svg_of(chart)
    assert float(svg.get("width")) <= 720
    assert not {"NaN", "undefined", "null"} & set(texts(svg))


def test_charts_leave_their_tables_as_they_were():
    for draw, table in [
        (figures.layer_sparsity, layers_table(3)),
        (figures.training, training_table(2, 5)),
        (figures.element_scores, scores_table(3)),
        (figures.type_features, types_table(4)),
        (figures.feature_tracks, tracks_table(KNOT)),
        (figures.length_distribution, LENGTHS.copy()),
        (figures.masked_accuracy, masked_table()),
        (figures.overview, STEPS.copy()),
    ]:
        before = table.copy()
        draw(table)
        pd.testing.assert_frame_equal(table, before)


# ---------------------------------------------------------------- checks of the tables


@pytest.mark.parametrize(
    "draw, table",
    [
        (figures.overview, STEPS),
        (figures.retained_features, layers_table(2)),
        (figures.layer_sparsity, layers_table(2)),
        (figures.training, training_table(2, 3)),
        (figures.element_scores, scores_table(2)),
        (figures.type_features, types_table(2)),
        (figures.feature_tracks, tracks_table(KNOT)),
        (figures.masked_accuracy, masked_table()),
        (figures.length_distribution, LENGTHS),
    ],
)
def test_a_table_without_rows_or_without_a_column_is_refused(draw, table):
    with pytest.raises(ValueError, match=f"{draw.__name__}: the table has no rows"):
        draw(table.head(0))
    column = table.columns[0]
    with pytest.raises(ValueError, match=f"{draw.__name__}: the table has no column {column}"):
        draw(table.drop(columns=column))


def test_too_many_rows_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="5,200 rows are more than a page can carry .5,000.: aggregate"):
        figures.feature_tracks(tracks_table("." * 5200))


@pytest.mark.parametrize("draw, table", [(figures.element_scores, scores_table(2)), (figures.feature_tracks, tracks_table(KNOT))])
def test_a_letter_that_is_no_element_is_refused(draw, table):
    with pytest.raises(ValueError, match="'Z' is no structural element"):
        draw(table.assign(element="Z"))


@pytest.mark.parametrize(
    "column, value, message",
    [
        ("activation", 1.5, "RNA one, position 3: activation 1.5 is not between 0 and 1"),
        ("activation", np.nan, "RNA one, position 3: activation nan"),
        ("position", 9, "the positions of RNA one are not 1 to 21"),
        ("partner", 77, "RNA one, position 3: partner 77 is outside"),
    ],
)
def test_a_track_that_cannot_be_right_is_refused_by_record_and_place(column, value, message):
    table = tracks_table(KNOT)
    table.loc[2, column] = value
    with pytest.raises(ValueError, match=message):
        figures.feature_tracks(table)


# ---------------------------------------------------------------- layers


def test_sparsity_shows_the_value_in_its_cell_and_shades_each_row_on_its_own():
    table = layers_table(3)
    table["explained_variance"] = [0.1, 0.2, 0.3, 0.9, 0.8, 0.7]
    rows = all_rows(figures.layer_sparsity(table))
    variance = rows[rows.measure == "explained variance"].sort_values(["architecture", "layer"])
    assert variance.label.tolist() == ["0.100", "0.200", "0.300", "0.900", "0.800", "0.700"]
    np.testing.assert_allclose(variance.shade, [0, 0.5, 1, 1, 0.5, 0])
    dead = rows[rows.measure == "dead features"]
    assert set(dead.label) == {"30.0%"} and set(dead.shade) == {0}
    share = rows[rows.measure == "active latents (L0 share)"]
    np.testing.assert_allclose(share.value, 16 / 512)
    assert not (rows[rows.architecture == "relu-l1"].measure == "type selectivity").any()


def test_a_layer_whose_features_are_all_dead_is_still_drawn():
    table = layers_table(3)
    density = [column for column in table if column.startswith("density")]
    table.loc[0, density] = np.nan
    table.loc[1, density] = 0.0
    table.loc[0, ["dead_share", "retained", "l0"]] = [1.0, 0, 0.0]
    svg = svg_of(figures.retained_features(table))
    assert sum("retained features: 0" in label for label in marks(svg, "point")) >= 1
    svg_of(figures.layer_sparsity(table))


def test_retained_features_draws_a_point_per_layer_and_architecture_in_each_panel():
    points = marks(svg_of(figures.retained_features(layers_table(4))), "point")
    assert len(points) == 3 * 2 * 4
    assert sum("retained features: 304" in point and "TopK" in point for point in points) == 3


def test_training_curves_keep_their_ends_when_thinned():
    table = training_table(33, 300)
    drawn = all_rows(figures.training(table))
    assert len(drawn) <= theme.MAXIMUM_ROWS
    ends = drawn.groupby(["architecture", "layer"]).tokens.agg(["min", "max"])
    assert len(ends) == 66 and set(ends["min"]) == {1024} and set(ends["max"]) == {300 * 1024}
    short = training_table(2, 5)
    assert len(all_rows(figures.training(short))) == len(short)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_ticks_of_a_logarithmic_axis_are_round_and_inside_it(values):
    axis, scale = theme.log_axis(pd.Series([*values, 0.0, np.nan]))
    low, high = scale.domain
    assert low < min(values) and high > max(values)
    assert all(low <= tick <= high and float(f"{tick:.2g}") == tick for tick in axis.values)
    assert high / low < 10 or axis.values


# ---------------------------------------------------------------- concepts


def test_only_features_above_both_controls_get_a_filled_point():
    svg = svg_of(figures.element_scores(scores_table(6)[lambda table: table.element == "S"]))
    points = [element for element in svg.iter() if element.get("aria-roledescription") == "point"]
    assert [point.get("fill") for point in points] == ["white"] * 3 + [theme.ELEMENT_COLOURS["S"]] * 3  # F1 .1 ... .6, null .35


def test_elements_have_fixed_distinct_colours():
    assert list(theme.ELEMENT_COLOURS) == list(ELEMENTS)
    assert len(set(theme.ELEMENT_COLOURS.values())) == len(ELEMENTS)


def test_type_features_draws_the_union_of_the_top_features_with_their_values():
    table = types_table(2, types=4, features=9)
    rows = all_rows(figures.type_features(table, top=2))
    for layer in (1, 2):
        expected = set(table[(table.layer == layer) & (table["rank"] <= 2)].feature)
        assert set(rows[rows.layer == layer].feature) == expected
    merged = rows.merge(table, on=["layer", "feature", "type"], suffixes=("", "_given"), validate="1:1")
    assert len(merged) == len(rows)
    np.testing.assert_allclose(merged.activation, merged.activation_given)


def test_type_features_takes_first_middle_and_last_of_many_layers():
    spec = figures.type_features(types_table(6)).to_dict()
    assert [panel["title"]["text"] for panel in spec["vconcat"]] == ["layer L1", "layer L4", "layer L6"]


def test_all_panels_of_type_features_share_the_order_of_types():
    spec = figures.type_features(types_table(3)).to_dict()
    orders = [panel["encoding"]["x"]["sort"] for panel in spec["vconcat"]]
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0]) == [f"type {i}" for i in range(6)]


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=40)
def test_clustering_is_a_permutation(rows, columns, seed):
    assert sorted(clustered(np.random.default_rng(seed).random((rows, columns)))) == list(range(rows))


def test_clustering_brings_equal_rows_together():
    order = clustered(np.array([[0.0, 1], [1, 0], [0, 1], [1, 0], [0, 1]]))
    assert sorted(order[:2]) in ([1, 3], [0, 2], [0, 4], [2, 4]) and {1, 3} in ({*order[:2]}, {*order[3:]})


def test_masked_accuracy_writes_the_tested_predictors_numbers():
    table = masked_table()
    svg = svg_of(figures.masked_accuracy(table))
    written = [text for text in texts(svg) if re.fullmatch(r"0\.\d{3}", text)]
    assert sorted(written) == sorted(f"{value:.3f}" for value in table[table.predictor == "model"].accuracy)
    with pytest.raises(ValueError, match="'looped' is no kind of position"):
        figures.masked_accuracy(table.assign(positions="looped"))


# ---------------------------------------------------------------- data and pipeline


def test_lengths_are_binned_without_losing_a_record():
    rows = all_rows(figures.length_distribution(LENGTHS))
    assert rows[["group", "length", "end", "records"]].to_numpy().tolist() == [["train", 20, 30, 12], ["natural", 200, 210, 11]]


def test_the_pipeline_is_boxes_joined_by_arrows_in_order():
    svg = svg_of(figures.overview(STEPS))
    assert sum(text == "a title" for text in texts(svg)) == 6
    assert len(marks(svg, "rect mark")) == 6
    assert len(marks(svg, "point")) == 5
    boxes = all_rows(figures.overview(STEPS)).dropna(subset="title").drop_duplicates("step")
    assert (boxes.right <= theme.WIDTH).all()
    assert boxes.groupby("top").left.apply(lambda left: left.is_monotonic_increasing and left.is_unique).all()


# ---------------------------------------------------------------- RNAs


@pytest.mark.parametrize("structure", [CLOVERLEAF, KNOT, "." * 7, "((...))"])
def test_every_nucleotide_and_every_pair_is_drawn_once(structure):
    table = tracks_table(structure)
    svg = svg_of(figures.feature_tracks(table))
    assert len(marks(svg, "circle")) == len(structure)
    cells = [label for label in marks(svg, "rect mark")]
    assert len(cells) == 2 * len(structure)  # activation, element
    for position, activation in zip(table.position, table.activation):
        mine = [label for label in cells + marks(svg, "circle") if f"position: {position};" in label]
        assert [float(re.search("activation: ([^;]+)", label)[1]) for label in mine] == pytest.approx([activation] * 3, abs=6e-4)
    assert len(marks(svg, "rule mark")) == (pair_table(structure) >= 0).sum() // 2
    for base in "ACGU":
        assert texts(svg).count(base) == 2 * (table.base == base).sum()  # track and drawing


def test_a_long_rna_is_wrapped_into_rows_of_sixty():
    table = tracks_table(LONG)
    rows = all_rows(figures.feature_tracks(table))
    assert rows.groupby("top").size().tolist() == [60, 60, 30]
    assert rows["column"].max() == 59


def test_rnas_are_drawn_in_the_order_of_the_table():
    table = pd.concat([tracks_table(KNOT, "second"), tracks_table(CLOVERLEAF, "first")])
    titles = [panel["title"]["text"] for panel in figures.feature_tracks(table).to_dict()["vconcat"] if "title" in panel]
    assert titles == ["second", "first"]


def test_given_coordinates_are_used_as_they_are():
    table = tracks_table(KNOT).assign(x=np.arange(21.0), y=3.0)
    rows = all_rows(figures.feature_tracks(table))
    assert rows.x.tolist() == list(range(21)) and set(rows.y) == {3.0}


def test_a_hairpin_lies_with_its_five_prime_strand_on_top():
    structure = "((((((((((....))))))))))"
    place = figures.layout(structure)
    assert np.ptp(place.x) > 2 * np.ptp(place.y)
    assert place.x[:10].is_monotonic_increasing and place.x[14:].is_monotonic_decreasing
    assert (place.y[:10].to_numpy() > place.y[14:][::-1].to_numpy()).all()


def test_a_cloverleaf_hangs_from_its_ends():
    place = figures.layout(CLOVERLEAF)
    partner = pair_table(CLOVERLEAF)
    ends, anticodon = place.y[[0, partner[0]]].mean(), place.y[31:38].mean()
    assert ends > place.y.mean() > anticodon
    assert place.x[0] < place.x[partner[0]]  # 5' on the left
    assert place.x[13:21].mean() < place.x.mean() < place.x[52:60].mean()  # D arm left, T arm right


def nested(draw_depth: int = 3):
    loop = st.integers(3, 7).map(lambda n: "." * n)
    helix = lambda inside: st.tuples(st.integers(2, 6), inside).map(lambda x: "(" * x[0] + x[1] + ")" * x[0])  # noqa: E731
    branch = lambda inside: st.lists(helix(inside), min_size=1, max_size=3).map(lambda parts: "." + "..".join(parts) + ".")  # noqa: E731
    return st.recursive(loop, branch, max_leaves=draw_depth)


@given(nested())
@settings(max_examples=30, deadline=None)
def test_drawn_pairs_and_neighbours_keep_their_distance(structure):
    place = figures.layout(structure).to_numpy()
    assert place.shape == (len(structure), 2) and np.isfinite(place).all()
    partner = pair_table(structure)
    paired = partner >= 0
    across = np.linalg.norm(place[paired] - place[partner[paired]], axis=1)
    along = np.linalg.norm(np.diff(place, axis=0), axis=1)
    assert (np.abs(across - 1) < 0.3).all()
    assert (along > 0.4).all() and (along < 1.7).all()


def test_layout_of_a_simple_helix_keeps_pairs_exactly_one_step_apart():
    structure = "((((((((....))))))))"
    place, partner = figures.layout(structure).to_numpy(), pair_table(structure)
    np.testing.assert_allclose(np.linalg.norm(place[:8] - place[partner[:8]], axis=1), 1, atol=0.02)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_layout_of_tiny_and_unpaired_rnas(length):
    assert figures.layout("." * length).shape == (length, 2)


def test_layout_refuses_what_is_no_structure():
    with pytest.raises(ValueError):
        figures.layout("((..)")


# ---------------------------------------------------------------- theme


def test_colours_keep_their_meaning_over_architectures():
    table = layers_table(2)
    assert theme.architectures(table) == ["topk", "relu-l1"]
    scale = theme.architecture_scale(theme.architectures(table[table.architecture == "relu-l1"]))
    assert scale.domain == ["ReLU + L1"] and scale.range == [theme.ARCHITECTURE_COLOURS["relu-l1"]]


@pytest.mark.parametrize("last, ticks", [(6, [1, 2, 3, 4, 5, 6]), (33, [1, 5, 10, 15, 20, 25, 30, 33])])
def test_layers_are_labelled_as_far_as_there_is_room(last, ticks):
    assert theme.layer_ticks(pd.Series(range(1, last + 1))) == ticks
