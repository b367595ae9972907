"""Verdicts follow from the numbers: they change when the data do."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_rna.analysis.claims import (
    HOLDS,
    NOT,
    RULES,
    UNKNOWN,
    WEAKLY,
    concepts_found,
    element_feature,
    rules,
    table,
    trend,
)

FALLING = pd.Series([0.9, 0.7, 0.5, 0.4, 0.2, 0.1], index=range(1, 7))
FLAT = pd.Series([0.5, 0.4, 0.6, 0.5, 0.4, 0.6], index=range(1, 7))


def verdict(values, control, direction=-1):
    return trend("claim", "density", values, "random weights", control, direction).verdict


def test_a_trend_holds_if_the_control_has_none_and_holds_weakly_if_it_has_it_too():
    assert verdict(FALLING, FLAT) == HOLDS
    assert verdict(FALLING, FALLING * 0.5) == WEAKLY
    assert verdict(FLAT, FLAT) == verdict(FLAT, FALLING) == NOT
    assert verdict(FALLING, FLAT, direction=1) == NOT and verdict(-FALLING, FLAT, direction=1) == HOLDS


def test_a_trend_over_few_layers_cannot_be_told_however_steep():
    assert verdict(FALLING.head(3), FLAT.head(3)) == UNKNOWN
    assert verdict(FALLING.head(4), FLAT.head(4)) == HOLDS
    assert verdict(FALLING.where(FALLING > 0.45), FLAT) == UNKNOWN
    assert verdict(pd.Series(1.0, index=range(1, 7)), FLAT) == NOT
    assert verdict(FALLING, FLAT.head(2)) == HOLDS


def test_the_p_value_of_a_trend_is_that_of_all_orders():
    finding = trend("claim", "density", FALLING.head(4), "none", FLAT, -1)
    assert finding.found == pytest.approx(-1) and f"p = {1 / 24:.2g}" in finding.why


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=6, unique=True))
def test_a_trend_never_holds_in_both_directions(values):
    series = pd.Series(values, index=range(1, len(values) + 1))
    assert NOT in {verdict(series, FLAT, 1), verdict(series, FLAT, -1)}


def best(**changes):
    found = {"f1": 0.7, "f1_low": 0.65, "base_f1": 0.5, "null_p95": 0.55, "elements": 300, "explained": False}
    return pd.Series(found | {"control": "PCA", "control_f1": 0.6, "lead_low": 0.02} | changes, dtype=object)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (best(), HOLDS),
        (best(lead_low=0.0), WEAKLY),
        (best(control_f1=0.72, lead_low=-0.1), WEAKLY),
        (best(explained=True), WEAKLY),
        (best(f1_low=0.55), NOT),
        (best(base_f1=0.66), NOT),
        (best(elements=9), UNKNOWN),
        (best(f1_low=np.nan), UNKNOWN),
        (best(control=None, control_f1=np.nan, lead_low=np.nan), HOLDS),
    ],
)
def test_a_feature_exists_if_it_beats_chance_and_clearly_every_control_and_is_not_its_confounds(
    row, expected
):
    finding = element_feature("a stem feature exists", row)
    assert finding.verdict == expected and finding.found == 0.7
    assert (
        finding.control == f"best control: {row.control or 'none'}"
        and finding.control_found is row.control_f1
    )


@pytest.mark.parametrize(
    ("found", "tested", "control", "expected"),
    [(5, 8, 1, HOLDS), (4, 8, 1, WEAKLY), (5, 8, 5, NOT), (0, 8, 0, NOT), (0, 0, 0, UNKNOWN)],
)
def test_concepts_are_aligned_if_more_are_found_than_in_the_control(found, tested, control, expected):
    assert concepts_found("claim", "elements", found, tested, "random weights", control).verdict == expected


def test_every_finding_names_a_rule_that_is_printed_with_its_verdict():
    findings = [
        trend("layers grow sparse", "density", FALLING, "random weights", FLAT, -1),
        element_feature("stem", best()),
        concepts_found("align", "elements", 5, 8, "random weights", 1),
    ]
    printed = rules()
    for row in table(findings).itertuples():
        assert row.verdict in set(printed.verdict[printed.rule == row.rule])
    assert len(printed) == sum(map(len, RULES.values())) == 12
