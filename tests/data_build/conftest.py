"""A small corpus and a small recipe."""

import pandas as pd
import pytest
from batches import Corpus
from pretrain import Recipe

RECIPE = Recipe(
    width=32,
    blocks=2,
    heads=2,
    intermediate=48,
    tokens=256 * 2 * 48,
    batch_tokens=256,
    batches=2,
    warmup_steps=2,
    helices_first=0.0,
)


@pytest.fixture(scope="session")
def recipe():
    """32 steps a pool, and one and a half pools."""
    return RECIPE


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    rows = [
        ("GGGGAAAACCCC", "((((....))))", "A"),
        ("GGGCAAAAAGCCCA", "((((.....)))).", "B"),
        ("GCGAAAAUCGC", "((((...))))", "B"),
    ]
    columns = ["sequence", "secondary_structure", "family"]
    return Corpus.of_records(pd.DataFrame(rows * 5, columns=columns).assign(type="one", origin="sampled"))
