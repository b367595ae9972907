"""Scoring a language model: one row for a folder."""

import pandas as pd
from evaluate import evaluate, record_sets

from sae_rna.parameters import ROOT


def test_a_model_gets_a_score_on_every_set():
    records = pd.read_parquet(ROOT / "data" / "records.parquet")
    scores = evaluate(str(ROOT / "data" / "rinalmo-nano"), records, per_set=4, bprna=None, audit=False)
    assert set(scores) == set(record_sets(records, 4)) and len(scores) >= 4
    assert all(0 <= value["accuracy"] <= 1 and value["loss"] > 0 for value in scores.values())
