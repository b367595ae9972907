"""Features beside what their confounds predict."""

from charts import confounds_table, svg_named, svg_of
from drawn import linear, placed, texts

from sae_rna import figures


def test_explained_features_are_hollow_diamonds_among_their_confounds():
    table, svg = confounds_table(), svg_named("confounds")
    points = [element for element in svg.iter() if element.get("aria-roledescription") == "point"]
    features = [point for point in points if "prediction: prediction" not in point.get("aria-label")]
    assert len(points) == 6 and [point.get("fill") for point in features] == ["#0072b2", "white", "#0072b2"]
    assert ["A" in point.get("d") for point in features] == [True, False, True]
    assert texts(svg).count("explained by confounds") == 1
    assert {"L5, 184", "0.10", "−0.25", "–"} <= set(texts(svg))
    drawn = [  # panel by panel, first the predictions
        value
        for _, rows in table.groupby("setting")
        for column in ("confound_base_auroc", "base_auroc")
        for value in rows[column]
    ]
    assert linear(drawn, [x for _, x, _ in placed(svg)])
    assert {"seen families", "unseen families"} <= set(texts(svg))
    none = texts(svg_of(figures.confounds(table.assign(explained=False))))
    assert "feature explained by its confounds" not in none
