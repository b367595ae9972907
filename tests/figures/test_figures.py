"""Figures: what is drawn is what the table says, and nothing is drawn from a table that cannot be right."""

import functools
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
from sae_rna.figures.by_concept import EXPLAINED, EXPLAINED_TYPE, clustered
from sae_rna.records.structure import ELEMENTS, element_string, pair_table

CLOVERLEAF = (
    "(((((((..((((........))))((((((.......))))))...(((((.......))))))))))))."  # bpRNA_CRW_29143, a tRNA
)
KNOT = ".[[..(((((]]....)))))"  # a pseudoknot
LONG = "((((" * 15 + "." * 30 + "))))" * 15


def layers_table(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for architecture in ("relu-l1", "topk"):
        for layer in range(1, count + 1):
            deciles = np.sort(np.exp(rng.normal(-4, 1, 9)).clip(0, 1))
            rows.append(
                {
                    "layer": layer,
                    "architecture": architecture,
                    "latents": 512,
                    "retained": 300 + layer,
                    "dead_share": 0.3,
                    "l0": 16.0,
                }
                | {
                    "explained_variance": 0.8,
                    "type_selectivity": 0.01 * layer if architecture == "topk" else np.nan,
                }
                | {f"density_p{10 * i}": value for i, value in enumerate(deciles, 1)}
            )
    return pd.DataFrame(rows)


def training_table(count: int, steps: int) -> pd.DataFrame:
    frame = pd.MultiIndex.from_product(
        [["topk", "relu-l1"], range(1, count + 1), range(steps)], names=["architecture", "layer", "step"]
    )
    table = frame.to_frame(index=False)
    share = (table.step + 1) / steps
    return table.assign(
        tokens=1024 * (table.step + 1),
        loss=1 / share,
        l0=16.0,
        explained_variance=share,
        dead_share=0.5 * share,
    )


def scores_table(count: int) -> pd.DataFrame:
    table = pd.MultiIndex.from_product(
        [range(1, count + 1), list(ELEMENTS)], names=["layer", "element"]
    ).to_frame(index=False)
    return table.assign(
        feature=7, f1=0.1 * table.layer.clip(upper=6), base_f1=0.25, null_p95=0.35, auroc=0.7, elements=1200
    )


def types_table(layers: int, types: int = 6, features: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    names = [f"type {i}" for i in range(types)]
    table = pd.MultiIndex.from_product(
        [range(1, layers + 1), range(features), names], names=["layer", "feature", "type"]
    ).to_frame(index=False)
    table["activation"] = rng.random(len(table)).round(4)
    table["rank"] = table.groupby(["layer", "type"]).activation.rank(ascending=False).astype(int)
    return table


def tracks_table(structure: str, record: str = "RNA one") -> pd.DataFrame:
    rng = np.random.default_rng(2)
    length = len(structure)
    return pd.DataFrame(
        {
            "record": record,
            "position": range(1, length + 1),
            "base": list("ACGU" * length)[:length],
            "bracket": list(structure),
        }
        | {
            "element": list(element_string(structure)),
            "activation": rng.random(length),
            "partner": pair_table(structure) + 1,
        }
        | {"feature": 2053, "layer": 18}
    )


def masked_table() -> pd.DataFrame:
    table = pd.MultiIndex.from_product(
        [
            ["held-out families", "natural"],
            ["model", "Markov", "most common base"],
            ["all", "paired", "unpaired"],
        ],
        names=["set", "predictor", "positions"],
    ).to_frame(index=False)
    return table.assign(tokens=1000, accuracy=np.linspace(0.2, 0.7, len(table)))


SOURCES = ["SAE", "neurons", "PCA", "ICA", "one-hot window"]


def controls_table() -> pd.DataFrame:
    """Of "GC pair" PCA is the best control and the dictionary leads by .05, of "AU pair" neurons are and it is .02 behind."""
    scores = {("element", "stem"): [0.6, 0.5, 0.4, 0.3, np.nan], ("element", "bulge"): [0.1, np.nan, np.nan, np.nan, np.nan],
              ("pair", "GC pair"): [0.45, 0.2, 0.4, 0.3, 0.1], ("pair", "AU pair"): [0.38, 0.4, 0.1, 0.2, 0.3]}  # fmt: skip
    table = pd.DataFrame(
        {
            "group": group,
            "concept": concept,
            "source": source,
            "layer": np.nan if source == "one-hot window" else 3,
            "f1": f1,
        }
        for (group, concept), row in scores.items()
        for source, f1 in zip(SOURCES, row)
    )
    table[["f1_low", "f1_high", "auroc"]] = np.column_stack([table.f1 - 0.03, table.f1 + 0.02, 1 - table.f1])
    return table.assign(null_p95=np.where(table.source == "SAE", 0.15, np.nan))


def confounds_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "concept": ["stem", "bulge", "GC pair"],
            "layer": [1, 5, 6],
            "feature": [7, 184, 1023],
            "f1": [0.6, 0.2, 0.4],
        }
        | {"confound_f1": [0.3, 0.25, 0.1], "r2": [0.1, -0.25, np.nan], "explained": [False, True, False]}
    )


def fidelity_table(
    layers: int, variants: tuple[str, ...] = ("mean ablation", "PCA, k components", "relu-l1", "topk")
) -> pd.DataFrame:
    table = pd.MultiIndex.from_product([range(1, layers + 1), variants], names=["layer", "variant"]).to_frame(
        index=False
    )
    recovered = np.linspace(-0.8, 1.2, len(table))
    table = table.assign(
        loss_recovered=recovered,
        low=recovered - 0.1,
        high=recovered + 0.1,
        kl=np.geomspace(1e-4, 0.1, len(table)),
    )
    return table.assign(l0=16.0, explained_variance=0.8)


def recurrence_table(layers: int) -> pd.DataFrame:
    table = pd.MultiIndex.from_product(
        [range(1, layers + 1), ["other seed", "other size"]], names=["layer", "comparison"]
    )
    table = table.to_frame(index=False)
    return table.assign(
        share=np.linspace(0.2, 0.6, len(table)),
        share_null=0.01,
        median_cosine=np.linspace(-0.1, 0.7, len(table)),
    )


def effects_table(layers: int) -> pd.DataFrame:
    table = pd.MultiIndex.from_product(
        [range(1, layers + 1), ["tRNA", "5S rRNA", "snoRNA"]], names=["layer", "type"]
    ).to_frame(index=False)
    surviving = {"tRNA": 3, "5S rRNA": 140, "snoRNA": 0}
    table["surviving"] = table.type.map(surviving) + table.layer * (table.type != "snoRNA")
    return table.assign(tested=np.where(table.type == "snoRNA", 0, 400))


STEPS = pd.DataFrame(
    {
        "step": list("abcdef"),
        "title": "a title",
        "detail": "numbers that fill more than a single line of a box",
    }
)
LENGTHS = pd.DataFrame(
    {"group": ["train", "train", "natural"], "length": [21, 29, 200], "records": [5, 7, 11]}
)
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
    "tracks": lambda: figures.feature_tracks(
        pd.concat([tracks_table(CLOVERLEAF), tracks_table(LONG, "RNA two")])
    ),
    "masked accuracy": lambda: figures.masked_accuracy(masked_table()),
    "lengths": lambda: figures.length_distribution(LENGTHS),
    "element scores with explained ones": lambda: figures.element_scores(
        scores_table(6).assign(explained=True)
    ),
    "type features with explained ones": lambda: figures.type_features(types_table(3).assign(explained=True)),
    "controls": lambda: figures.controls(controls_table()),
    "controls by AUROC": lambda: figures.controls(controls_table(), "auroc"),
    "confounds": lambda: figures.confounds(confounds_table()),
    "fidelity of one layer": lambda: figures.fidelity(fidelity_table(1)),
    "fidelity of 6 layers": lambda: figures.fidelity(fidelity_table(6)),
    "fidelity of 33 layers": lambda: figures.fidelity(fidelity_table(33)),
    "recurrence of one layer": lambda: figures.recurrence(recurrence_table(1)),
    "recurrence of 33 layers": lambda: figures.recurrence(recurrence_table(33)),
    "type effects of one layer": lambda: figures.type_effects(effects_table(1)),
    "type effects of 33 layers": lambda: figures.type_effects(effects_table(33)),
}


def svg_of(chart: alt.TopLevelMixin) -> ElementTree.Element:
    return ElementTree.fromstring(vl_convert.vegalite_to_svg(chart.to_dict(), vl_version="6.4"))


@functools.cache
def svg_named(name: str) -> ElementTree.Element:
    return svg_of(CHARTS[name]())


def marks(svg: ElementTree.Element, kind: str) -> list[str]:
    """What a screen reader says of every mark of a kind."""
    return [
        element.get("aria-label", "") for element in svg.iter() if element.get("aria-roledescription") == kind
    ]


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
    svg = svg_named(name)
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
        (figures.element_scores, scores_table(3).assign(explained=True)),
        (figures.type_features, types_table(3).assign(explained=True)),
        (figures.controls, controls_table()),
        (figures.confounds, confounds_table()),
        (figures.fidelity, fidelity_table(3)),
        (figures.recurrence, recurrence_table(3)),
        (figures.type_effects, effects_table(3)),
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
        (figures.controls, controls_table()),
        (figures.confounds, confounds_table()),
        (figures.fidelity, fidelity_table(2)),
        (figures.recurrence, recurrence_table(2)),
        (figures.type_effects, effects_table(2)),
    ],
)
def test_a_table_without_rows_or_without_a_column_is_refused(draw, table):
    if draw not in (figures.type_features, figures.type_effects):  # of which none is a result
        with pytest.raises(ValueError, match=f"{draw.__name__}: the table has no rows"):
            draw(table.head(0))
    column = table.columns[0]
    with pytest.raises(ValueError, match=f"{draw.__name__}: the table has no column {column}"):
        draw(table.drop(columns=column))


def test_too_many_rows_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="5,200 rows are more than a page can carry .5,000.: aggregate"):
        figures.feature_tracks(tracks_table("." * 5200))


@pytest.mark.parametrize(
    "draw, table", [(figures.type_features, types_table(2)), (figures.type_effects, effects_table(2))]
)
def test_a_result_of_no_features_is_said_in_words(draw, table):
    chart = draw(table.head(0))
    (words,) = texts(svg_of(chart))
    assert words.startswith("No feature") and chart.to_dict()["description"] == words


@pytest.mark.parametrize(
    "draw, table, row",
    [
        (figures.controls, controls_table(), "group element, concept stem, source SAE"),
        (figures.confounds, confounds_table(), "concept stem"),
        (figures.fidelity, fidelity_table(2), "layer 1, variant mean ablation"),
        (figures.recurrence, recurrence_table(2), "layer 1, comparison other seed"),
        (figures.type_effects, effects_table(2), "layer 1, type tRNA"),
    ],
)
def test_what_has_one_place_cannot_be_given_twice(draw, table, row):
    with pytest.raises(ValueError, match=f"{draw.__name__}: more than one row is of {row}: keep the one"):
        draw(pd.concat([table, table.head(1)]))


@pytest.mark.parametrize(
    "draw, table", [(figures.element_scores, scores_table(2)), (figures.feature_tracks, tracks_table(KNOT))]
)
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
    assert [point.get("fill") for point in points] == ["white"] * 3 + [
        theme.ELEMENT_COLOURS["S"]
    ] * 3  # F1 .1 ... .6, null .35


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


def test_features_that_confounds_explain_are_hollow_diamonds_and_the_legend_says_so():
    table = scores_table(6)[lambda table: table.element == "S"].assign(
        explained=[True, False, False, True, False, np.nan]
    )
    svg = svg_of(figures.element_scores(table))
    points = [element for element in svg.iter() if element.get("aria-roledescription") == "point"]
    assert ["A" in point.get("d") for point in points] == [
        False,
        True,
        True,
        False,
        True,
        True,
    ]  # an arc makes a circle
    assert [point.get("fill") for point in points] == ["white"] * 4 + [theme.ELEMENT_COLOURS["S"]] * 2
    assert EXPLAINED in texts(svg) and "not explained" not in texts(svg)
    assert EXPLAINED not in texts(svg_of(figures.element_scores(table.drop(columns="explained"))))


@pytest.mark.parametrize("count", [7, 60])  # rows with names, and rows too low for names
def test_a_dagger_marks_explained_features_of_types_in_their_layer_alone(count):
    table = types_table(2, types=20, features=count)
    table["explained"] = (table.layer == 2) & (table.feature == 4) & (table.type == "type 3")
    svg = svg_of(figures.type_features(table, top=20))
    assert [text for text in texts(svg) if "†" in text] == [
        "† " + EXPLAINED_TYPE,
        "4†" if count == 7 else "†",
    ]
    plain = svg_of(figures.type_features(table.assign(explained=False), top=20))
    assert not [text for text in texts(plain) if "†" in text]


# ---------------------------------------------------------------- trust


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


def placed(svg: ElementTree.Element, kind: str = "point") -> list[tuple[str, float, float]]:
    """Label, x and y (in its panel) of every mark of a kind."""
    elements = [element for element in svg.iter() if element.get("aria-roledescription") == kind]
    places = [
        re.match(r"translate\(([^,]+),([^)]+)\)", element.get("transform")).groups() for element in elements
    ]
    return [(element.get("aria-label"), float(x), float(y)) for element, (x, y) in zip(elements, places)]


def said(label: str, name: str) -> float:
    """The number of that name in a mark's label."""
    return float(re.search(f"(?:^|; ){name}: ([^;%]+)", label)[1].replace("−", "-"))


def linear(values: list[float], places: list[float]) -> bool:
    """Whether places are a linear function of values, as they are not where something is cut off."""
    return len(values) > 2 and np.allclose(
        np.polyval(np.polyfit(values, places, 1), values), places, atol=0.1
    )


def of_kind(svg: ElementTree.Element, kind: str) -> list[tuple[str, float, float]]:
    return [place for place in placed(svg) if f"kind: {kind}" in place[0]]


def test_controls_name_the_best_control_and_write_the_lead():
    svg = svg_named("controls")
    written = texts(svg)
    leads = {"stem": ("+0.100", "neurons"), "GC pair": ("+0.050", "PCA"), "AU pair": ("−0.020", "neurons")}
    for lead, rival in leads.values():
        assert lead in written and rival in written
    assert len([text for text in written if re.fullmatch(r"[+−]0\.\d{3}", text)]) == len(
        leads
    )  # bulge has no control
    fills = {
        text: element.get("fill")
        for element, text in zip([e for e in svg.iter() if e.tag.endswith("}text")], written)
    }
    assert fills["+0.050"] == fills["+0.100"] == "#0072b2" and fills["−0.020"] == theme.GREY
    assert (
        "ahead of every control on 2 of the 3" in figures.controls(controls_table()).to_dict()["description"]
    )


@pytest.mark.parametrize(
    "f1, text, colour",
    [(0.4, "0.000", theme.GREY), (0.4004, "0.000", theme.GREY), (0.402, "+0.002", "#0072b2")],
)
def test_a_tie_is_no_lead(f1, text, colour):
    table = controls_table().query("concept == 'GC pair'")
    svg = svg_of(figures.controls(table.assign(f1=table.f1.replace(0.45, f1))))
    assert [
        element.get("fill")
        for element in svg.iter()
        if element.tag.endswith("}text") and element.text == text
    ] == [colour]


def test_every_known_score_is_one_mark_at_its_place():
    table, svg = controls_table(), svg_named("controls")
    kinds = {kind: of_kind(svg, kind) for kind in ("SAE", "best control", "other controls", "shuffled null")}
    assert {kind: len(points) for kind, points in kinds.items()} == {
        "SAE": 4, "best control": 3, "other controls": 8, "shuffled null": 4}  # fmt: skip
    points = placed(svg)
    assert len(points) == table.f1.notna().sum() + 4
    assert linear([said(label, "held-out F1") for label, *_ in points], [x for _, x, _ in points])
    assert len(marks(svg, "rule mark")) == 4 + 3  # intervals of the one under test and of the best controls


def test_the_first_source_of_the_table_is_under_test():
    table = controls_table()
    svg = svg_of(figures.controls(table.iloc[np.argsort(table.source != "PCA", kind="stable")]))
    assert len(of_kind(svg, "PCA")) == 3 and "−0.200" in texts(svg)  # of stems, SAE being its best control


def test_controls_by_auroc_have_no_null_and_intervals_only_where_they_are_known():
    svg = svg_named("controls by AUROC")
    assert not marks(svg, "rule mark") and not of_kind(svg, "shuffled null")
    assert "−0.300" in texts(svg)  # stems: AUROC .4 against ICA's .7
    table = controls_table()
    svg = svg_of(
        figures.controls(table.assign(auroc_low=table.auroc - 0.1, auroc_high=table.auroc + 0.1), "auroc")
    )
    assert len(marks(svg, "rule mark")) == 4 + 3
    with pytest.raises(ValueError, match="'accuracy' is no score to draw; there are f1 and auroc"):
        figures.controls(controls_table(), "accuracy")
    with pytest.raises(ValueError, match="no row has a number in auroc"):
        figures.controls(controls_table().assign(auroc=np.nan), "auroc")


def test_a_concept_that_only_controls_have_is_drawn():
    table = controls_table().query("not (concept == 'stem' and source == 'SAE')")
    svg = svg_of(
        figures.controls(table.sort_values("source", key=lambda source: source != "SAE", kind="stable"))
    )
    assert "stem" in texts(svg) and len(of_kind(svg, "best control")) == 3


def test_explained_features_are_hollow_diamonds_among_their_confounds():
    table, svg = confounds_table(), svg_named("confounds")
    points = [element for element in svg.iter() if element.get("aria-roledescription") == "point"]
    features = [point for point in points if "prediction: prediction" not in point.get("aria-label")]
    assert len(points) == 6 and [point.get("fill") for point in features] == ["#0072b2", "white", "#0072b2"]
    assert ["A" in point.get("d") for point in features] == [True, False, True]
    assert texts(svg).count("explained by confounds") == 1
    assert {"L5, 184", "0.10", "−0.25", "–"} <= set(texts(svg))
    places = [x for _, x, _ in placed(svg)]
    assert linear([*table.confound_f1, *table.f1], places)
    none = texts(svg_of(figures.confounds(table.assign(explained=False))))
    assert "feature explained by its confounds" not in none


def test_loss_recovered_is_drawn_unclipped_and_only_where_it_is_known():
    table = fidelity_table(6)
    table.loc[table.variant == "topk", "loss_recovered"] = [np.nan, -3.0, 0.5, 1.0, 1.5, 2.0]
    svg = svg_of(figures.fidelity(table))
    recovered = [place for place in placed(svg) if "nats per masked base" not in place[0]]
    divergence = [place for place in placed(svg) if "nats per masked base" in place[0]]
    drawn = table[table.variant != "mean ablation"].loss_recovered.dropna()
    values = [said(label, "loss recovered") for label, *_ in recovered]
    assert sorted(values) == pytest.approx(sorted(drawn), abs=6e-4) and linear(
        values, [y for *_, y in recovered]
    )
    kl = [said(label, "nats per masked base") for label, *_ in divergence]
    assert sorted(kl) == pytest.approx(sorted(table.kl), rel=1e-4) and linear(
        np.log(kl), [y for *_, y in divergence]
    )


def test_variants_stand_side_by_side_within_their_layer():
    rows = all_rows(figures.fidelity(fidelity_table(6))).dropna(subset="block")
    rows = rows.drop_duplicates(["block", "architecture"])
    assert (np.abs(rows.layer - rows.block) < 0.5).all()
    assert (rows.groupby("block").layer.nunique() == 4).all()
    many = all_rows(figures.fidelity(fidelity_table(33))).dropna(subset="block")
    assert (many.layer == many.block).all()


def test_the_language_model_itself_is_the_reference_and_no_line():
    with_model = fidelity_table(2, ("language model", "mean ablation", "topk"))
    without = with_model[with_model.variant != "language model"]
    assert figures.fidelity(with_model).to_dict() == figures.fidelity(without).to_dict()
    assert len(marks(svg_of(figures.fidelity(without)), "rule mark")) == 2 + 2  # references and intervals


def test_recurrence_has_a_null_for_each_comparison():
    table = recurrence_table(4)
    points = placed(svg_of(figures.recurrence(table)))
    random = [place for place in points if "series: random dictionary" in place[0]]
    assert len(points) == 3 * len(table) and len(random) == len(table)
    shares = [(said(label, "share of features"), y) for label, _, y in points if "share of features" in label]
    assert len(shares) == 2 * len(table) and linear(*zip(*shares))


def test_type_effects_write_every_number_and_a_dash_where_nothing_could_be_tested():
    table = effects_table(2)
    svg = svg_of(figures.type_effects(table))
    assert len(marks(svg, "rect mark")) == 4  # snoRNA has none
    for text in ("4", "5", "141", "142"):
        assert text in texts(svg)
    assert texts(svg).count("–") == 2
    order = [text for text in texts(svg) if text in set(table.type)]
    assert order == ["5S rRNA", "tRNA", "snoRNA"]
    assert "from 0 to 142" in figures.type_effects(table).to_dict()["description"]
    assert "from 0 to 0" in figures.type_effects(table.assign(surviving=0)).to_dict()["description"]


# ---------------------------------------------------------------- data and pipeline


def test_lengths_are_binned_without_losing_a_record():
    rows = all_rows(figures.length_distribution(LENGTHS))
    assert rows[["group", "length", "end", "records"]].to_numpy().tolist() == [
        ["train", 20, 30, 12],
        ["natural", 200, 210, 11],
    ]


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
        assert [float(re.search("activation: ([^;]+)", label)[1]) for label in mine] == pytest.approx(
            [activation] * 3, abs=6e-4
        )
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
    titles = [
        panel["title"]["text"]
        for panel in figures.feature_tracks(table).to_dict()["vconcat"]
        if "title" in panel
    ]
    assert titles == ["second", "first"]


def test_a_track_says_where_its_feature_is_explained_by_confounds():
    table = pd.concat(
        [tracks_table(KNOT, "one").assign(explained=True), tracks_table(KNOT, "two").assign(explained=False)]
    )
    spec = figures.feature_tracks(table).to_dict()
    assert [panel["title"]["subtitle"] for panel in spec["vconcat"] if "title" in panel] == [
        "feature 2053 of L18 (explained by its confounds), 21 nt",
        "feature 2053 of L18, 21 nt",
    ]
    assert spec["description"].count("explained by its confounds") == 1


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
    branch = lambda inside: st.lists(helix(inside), min_size=1, max_size=3).map(
        lambda parts: "." + "..".join(parts) + "."
    )  # noqa: E731
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
