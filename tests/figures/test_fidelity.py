"""Loss recovered and KL divergence."""

import numpy as np
import pytest
from charts import fidelity_table, svg_of
from drawn import all_rows, linear, marks, placed, said

from sae_rna import figures


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
    assert len(marks(svg_of(figures.fidelity(without)), "rule mark")) == 2 + 2 + 4
    # references; intervals of topk's loss recovered, and of topk's and the ablation's KL
