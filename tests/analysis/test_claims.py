"""Verdicts follow from the numbers: they change when the data do."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sae_rna.analysis import claims, confounds, controls, ground_truth, structure_features, type_features
from sae_rna.analysis.claims import (
    HOLDS,
    NOT,
    RULES,
    UNKNOWN,
    WEAKLY,
    causal_findings,
    concepts_found,
    element_feature,
    rules,
    table,
    trend,
)
from sae_rna.analysis.statistics.annotations import annotate_elements
from sae_rna.analysis.statistics.choosing import score_concepts
from sae_rna.analysis.statistics.nulls import discoveries
from sae_rna.parameters import ROOT
from sae_rna.records.structure import ELEMENTS, add_elements
from sae_rna.sae.encoding import token_table

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


@settings(max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=5, unique=True))
def test_a_trend_never_holds_in_both_directions(values):
    series = pd.Series(values, index=range(1, len(values) + 1))
    assert NOT in {verdict(series, FLAT, 1), verdict(series, FLAT, -1)}


def best(**changes):
    found = {"base_auroc": 0.7, "base_auroc_low": 0.65, "base_auroc_high": 0.75, "null_p95": 0.55}
    found |= {"elements": 300, "explained": False, "renamed": False, "control": "PCA", "control_score": 0.6}
    return pd.Series(found | {"lead": 0.1, "lead_low": 0.02, "lead_high": 0.18} | changes, dtype=object)


NONE = {"control": None} | dict.fromkeys(("control_score", "lead", "lead_low", "lead_high"), np.nan)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (best(), HOLDS),
        (best(lead_low=0.0), WEAKLY),
        (best(control_score=0.72, lead=-0.02, lead_low=-0.1, lead_high=0.01), WEAKLY),
        (best(control_score=0.8, lead=-0.1, lead_low=-0.2, lead_high=-0.01), NOT),
        (best(explained=True), NOT),
        (best(renamed=True), NOT),
        (best(base_auroc_low=0.55), NOT),
        (best(elements=9), UNKNOWN),
        (best(base_auroc_low=np.nan), UNKNOWN),
        (best(**NONE), HOLDS),
        (best(**NONE | {"explained": True}), NOT),
    ],
)
def test_a_feature_exists_if_it_beats_chance_and_clearly_every_control_and_is_not_its_confounds(
    row, expected
):
    finding = element_feature("a stem feature exists", row)
    assert finding.verdict == expected and finding.found == 0.7
    assert finding.control == (row.control or "none") and finding.control_found is row.control_score


@pytest.mark.parametrize(
    ("found", "tested", "control", "expected"),
    [(5, 8, 1, HOLDS), (4, 8, 1, WEAKLY), (5, 8, 5, NOT), (0, 8, 0, NOT), (0, 0, 0, UNKNOWN)],
)
def test_concepts_are_aligned_if_more_are_found_than_in_the_control(found, tested, control, expected):
    assert concepts_found("claim", "elements", found, tested, "random weights", control).verdict == expected


@pytest.mark.parametrize(
    ("found", "control", "used", "expected"),
    [(10, 1, 3, [HOLDS, HOLDS]), (10, 2, 2, [WEAKLY, WEAKLY]), (3, 3, 0, [NOT, NOT])],
)
def test_features_answer_and_are_used_if_many_do_and_hardly_any_control(found, control, used, expected):
    own, random = (pd.DataFrame({"pairing": np.arange(20) < count}) for count in (found, control))
    findings = causal_findings(own, random, {"used": used, "features": 8, "controls": 100})
    assert [finding.verdict for finding in findings] == expected
    assert [finding.found for finding in findings] == [found, used]
    printed = rules()
    assert all(f.verdict in set(printed.verdict[printed["kind of claim"] == f.rule]) for f in findings)


def test_every_finding_names_a_rule_that_is_printed_with_its_verdict():
    findings = [
        trend("layers grow sparse", "density", FALLING, "random weights", FLAT, -1),
        element_feature("stem", best()),
        concepts_found("align", "elements", 5, 8, "random weights", 1),
    ]
    printed = rules()
    for finding in findings:
        assert finding.verdict in set(printed.verdict[printed["kind of claim"] == finding.rule])
    assert len(printed) == sum(map(len, RULES.values())) == 16


def test_what_decides_is_told_in_words_and_verdicts_are_counted():
    findings = [
        trend("layers grow sparse", "density", FALLING, "random weights", FLAT.head(2), -1),
        element_feature("stem", best(explained=True))._replace(setting="seen families"),
        concepts_found("align", "elements", 5, 8, "random weights", 1),
        concepts_found("align", "types", 0, 0, "random weights", 0),
    ]
    told = table(findings)
    assert told.columns.tolist() == ["claim", "RNAs", "verdict", "what decides", "evidence"]
    assert told["what decides"].tolist() == [
        "rank correlation of layer and density: -1.00 (p = 0.0014); in the control (random weights): unknown",
        "300 instances, AUROC within bases 0.700 (0.650 to 0.750), chance 0.550; its confounds explain it; "
        "best control PCA 0.600, lead +0.100 (+0.020 to +0.180)",
        "elements: 5 of 8; random weights: 1",
        "types: 0 of 0; random weights: 0",
    ]
    assert told.RNAs.tolist() == ["all RNAs", "seen families", "all RNAs", "all RNAs"]
    assert told.evidence[1] == "[controls](../executed/08-controls.html#fig-controls)"
    assert claims.counts(findings) == {
        "claims": 4,
        "verdicts": "2 hold, 1 does not hold here, 1 cannot be told",
    }


def test_evidence_is_published_on_the_page_that_is_linked():
    for figure, page in claims._PAGES.items():
        assert f'"{figure}\\",' in (ROOT / "notebooks" / f"{page}.ipynb").read_text()


# -- findings of tables whose truth is known


def feature_summary(architecture, sequences, densities):
    """Two features a layer: one that fires in so many RNAs, at so high a density, and a dead one."""
    rows = [
        {"layer": layer, "architecture": architecture, "sequences": s, "density": d}
        for layer, (live, density) in enumerate(zip(sequences, densities), 1)
        for s, d in ((live, density), (0, 0.0))
    ]
    return pd.DataFrame(rows)


SETTING = "unseen families"


def concept_row(source, concept, **changes):
    row = {"source": source, "group": "element", "concept": concept, "layer": 2, "feature": 1}
    row |= {"setting": SETTING, "discovery": True, "base_auroc": 0.7, "selection_base_auroc": 0.7}
    row |= {"base_auroc_low": 0.65, "base_auroc_high": 0.75, "null_p95": 0.55, "elements": 50}
    return row | {"base_auroc_resampled": np.array([0.69, 0.7, 0.71])} | changes


def types_tested(layers, replicating):
    """Six features a layer for three types, of which so many prefer a type in other families, too."""
    rows = [
        {"layer": layer, "feature": feature, "type": "ABC"[feature % 3], "replicates": feature < count}
        for layer, count in zip(range(1, layers + 1), replicating)
        for feature in range(6)
    ]
    columns = ["layer", "feature", "type", "replicates"]
    return pd.DataFrame(rows, columns=columns).assign(effect=1.0, adjusted_effect=1.0, setting=SETTING)


def found_in(control=0.5, explained=False, random_types=(0, 0, 0, 0, 0), types=True, seen=False, lost=""):
    """Findings as a table by claim; with `seen`, all of the features' claims in seen families as well."""
    names = ["stem", "hairpin loop", "bulge"]
    low = {"base_auroc": control, "base_auroc_resampled": np.array([control] * 3), "base_auroc_low": 0.3}
    concepts = [concept_row("SAE", name) for name in names]
    concepts = pd.DataFrame([*concepts, *(concept_row("random", name, **low) for name in names)])
    confounds = pd.DataFrame({"layer": 2, "element": ["S", "H"], "explained": [explained, False]})
    confounds = confounds.assign(setting=SETTING)
    if seen:
        concepts, confounds = (
            pd.concat([of.assign(setting="seen families"), of]) for of in (concepts, confounds)
        )
    summary = [
        feature_summary("topk", [90, 70, 50, 30, 10], [0.1] * 5),
        feature_summary("relu-l1", [90] * 5, [0.9, 0.5, 0.4, 0.3, 0.1]),
    ]
    keys = ["source", "setting", "group", "concept"]
    kept = np.where(concepts.source == "SAE", ground_truth.KEEPS, ground_truth.LOSES)
    verdicts = concepts[keys].assign(verdict=np.where(concepts.concept == lost, ground_truth.LOSES, kept))
    findings = claims.findings(
        concepts.reset_index(drop=True),
        confounds,
        verdicts,
        pd.concat(summary, ignore_index=True),
        feature_summary("topk", [50, 40, 60, 40, 50], [0.1] * 5),
        types_tested(5, [0, 1, 2, 3, 4]) if types else types_tested(0, []),
        types_tested(5, random_types),
    )
    return pd.DataFrame(findings).set_index("claim")


def test_what_holds_is_found_to_hold():
    found = found_in()
    assert len(found) == 8 and (found.verdict == HOLDS).all()
    assert found.found["features follow the structure and not the letters"] == 3
    assert found.found["layers pass from diffuse to sparse"] == pytest.approx(-1)
    assert found.found["a stem feature exists"] == 0.7
    assert found.control_found["a stem feature exists"] == 0.5
    assert found.found["features align with RNA types"] == 3  # A, B and C
    assert found.found["features align with structural elements"] == 3
    assert set(found.control) == {"random", "none"}


def test_claims_about_features_are_decided_in_every_setting_and_stand_together():
    found = found_in(seen=True)
    assert found.index.tolist()[2:10] == [
        name for name in ("a stem feature exists", "a hairpin loop feature exists",
                          "features align with structural elements",
                          "features follow the structure and not the letters") for _ in range(2)]  # fmt: skip
    assert found.setting.tolist()[2:10] == ["seen families", SETTING] * 4
    assert set(found.setting[:2]) == {claims.BOTH} and set(found.setting[10:]) == {SETTING}


def test_a_better_control_ends_the_features_and_a_random_model_that_does_the_same_the_types():
    assert found_in(control=0.7).verdict["a stem feature exists"] == WEAKLY
    found = found_in(control=0.72, random_types=(0, 1, 2, 3, 4)).verdict
    assert found["a stem feature exists"] == found["a hairpin loop feature exists"] == NOT
    assert found["later layers are more type-selective"] == WEAKLY
    assert found["features align with RNA types"] == NOT


def test_confounds_end_the_feature_that_they_explain_alone():
    found = found_in(explained=True).verdict
    assert found["a stem feature exists"] == NOT and found["a hairpin loop feature exists"] == HOLDS


def test_a_feature_that_loses_its_name_is_none():
    found = found_in(lost="stem").verdict
    assert found["a stem feature exists"] == NOT and found["a hairpin loop feature exists"] == HOLDS
    assert found["features follow the structure and not the letters"] == HOLDS  # 2 of 3
    found = found_in(lost="stem", seen=True)
    assert found.found["features follow the structure and not the letters"].tolist() == [2, 2]


def test_an_element_of_which_the_interval_reaches_chance_is_not_found_though_it_is_a_discovery():
    row = concept_row("SAE", "bulge", base_auroc_low=0.54)
    assert controls.is_found(pd.DataFrame([row, concept_row("SAE", "stem")])).tolist() == [False, True]


def test_types_that_cannot_be_tested_leave_their_claims_out():
    found = found_in(types=False)
    assert len(found) == 6 and not found.index.str.contains("type").any()


def test_findings_are_made_of_this_study(study):
    p, rnas = study.parameters, study.activations("structures")
    random, typed = study.activations("structures", p.random), study.activations("types", p.random)
    frozen = [study.autoencoders(of) for of in p.frozen]
    given = rnas, random, study.model, study.autoencoders(), frozen, study.training
    concepts = study.kept(controls.score_concepts, *given, shuffles=p.shuffles, seed=p.seed)
    scores = study.kept(structure_features.score_elements, rnas, shuffles=p.shuffles, seed=p.seed)
    explained = study.kept(confounds.explain_elements, rnas, scores, seed=p.seed)
    tested = [
        type_features.prefer_types(study.activations("types"), seed=p.seed),
        type_features.prefer_types(typed, seed=p.seed, filtered=False),
    ]
    summaries = study.summary(p.main), typed.summary
    names = concepts.head(0).assign(verdict="")
    findings = claims.findings(concepts, explained, names, *summaries, *tested)
    found, best = pd.DataFrame(findings).set_index("claim"), controls.best_of(concepts)
    stem = best[best.concept == "stem"].set_index("source").base_auroc
    assert found.found["a stem feature exists"] == stem[rnas.name]
    assert found.control_found["a stem feature exists"] == stem.drop(rnas.name).max()
    assert (found.verdict[found.rule == claims.TREND] == UNKNOWN).all()  # three layers


# -- verdicts on data whose truth is known


@pytest.fixture(scope="module")
def annotated(records_file):
    records = add_elements(pd.read_parquet(records_file))
    halves = [records.iloc[start::2].reset_index(drop=True) for start in (0, 1)]
    return [(token_table(half), half) for half in halves]


def scores(annotated, planted: bool, seed: int = 0) -> pd.DataFrame:
    """Concept scores of 60 features of noise, of which two follow stems and hairpin loops if `planted`."""
    rng, both = np.random.default_rng(seed), []
    for tokens, _ in annotated:
        noise = rng.random((len(tokens), 60)) * (rng.random((len(tokens), 60)) < 0.1)
        for feature, letter in enumerate("SH" if planted else ""):
            hit = (tokens.element == letter).to_numpy() & (rng.random(len(tokens)) < 0.8)
            noise[:, feature] = hit * rng.uniform(0.5, 1, len(tokens))
        both.append(
            (sparse.csr_matrix(noise), replace(annotate_elements(tokens), concepts=tuple(ELEMENTS.values())))
        )
    families = tuple(records.family.tolist() for _, records in annotated)
    return score_concepts(*both, shuffles=20, families=families, bootstraps=200)


def verdicts(own: pd.DataFrame, control: pd.DataFrame) -> dict[str, str]:
    sources = {"SAE": own, "control": control}
    both = pd.concat([of.assign(source=name, setting=SETTING) for name, of in sources.items()])
    rows = (
        controls.leads(both.reset_index(drop=True))
        .set_index("concept")
        .assign(explained=False, renamed=False)
    )
    return {name: element_feature(name, rows.loc[name]).verdict for name in ("stem", "hairpin loop")}


def test_planted_features_of_stems_and_hairpins_are_all_found_and_the_claims_hold(annotated):
    planted = scores(annotated, planted=True)
    found = planted[discoveries(planted)].set_index("concept")
    assert found.feature.to_dict() == {"stem": 0, "hairpin loop": 1}
    told = verdicts(planted, scores(annotated, planted=False, seed=9))
    assert told == {"stem": HOLDS, "hairpin loop": HOLDS}


def test_a_control_that_finds_the_same_leaves_a_claim_weak(annotated):
    own, control = (scores(annotated, planted=True, seed=seed) for seed in (0, 1))
    assert not set(verdicts(own, control).values()) & {HOLDS, UNKNOWN}
    assert set(verdicts(own, own).values()) == {WEAKLY}


@pytest.mark.parametrize("seed", range(3))
def test_in_noise_nothing_is_found_and_no_claim_holds(annotated, seed):
    noise = scores(annotated, planted=False, seed=seed)
    assert not discoveries(noise).any()
    told = verdicts(noise, scores(annotated, planted=False, seed=seed + 9))
    assert told == {"stem": NOT, "hairpin loop": NOT}
