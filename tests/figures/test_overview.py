"""The pipeline."""

from charts import STEPS, svg_of
from drawn import all_rows, marks, texts

from sae_rna import figures
from sae_rna.figures import theme


def test_the_pipeline_is_boxes_joined_by_arrows_in_order():
    svg = svg_of(figures.overview(STEPS))
    assert sum(text == "a title" for text in texts(svg)) == 6
    assert len(marks(svg, "rect mark")) == 6
    assert len(marks(svg, "point")) == 5
    boxes = all_rows(figures.overview(STEPS)).dropna(subset="title").drop_duplicates("step")
    assert (boxes.right <= theme.WIDTH).all()
    assert boxes.groupby("top").left.apply(lambda left: left.is_monotonic_increasing and left.is_unique).all()
