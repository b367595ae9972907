"""The evidence of a small study: its tables say of features and controls what scoring them by hand says."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sae_rna import figures
from sae_rna.analysis import claims, confounds, controls, evidence, tables
from sae_rna.analysis.statistics import scoring as concepts
from sae_rna.analysis.statistics.annotations import TOKEN_GROUPS, annotate
from sae_rna.extraction.stream import hidden_states
from sae_rna.records import composition
from sae_rna.records.readers import add_elements
from sae_rna.sae.encoding import token_table
from sae_rna.study import Study


@pytest.fixture(scope="module")
def table(study):
    return evidence.concept_table(study)


def sets(study, matrix):
    """Selection and held-out rows of activations that belong to `study.structures()`."""
    encoded = study.structures()
    rows = [encoded.rows(split) for split in ("selection", "heldout")]
    return [(matrix[mine], annotate(encoded.tokens[mine], encoded.records, TOKEN_GROUPS)) for mine in rows]


SCORES = ["concept", "feature", "threshold", "f1", "selection_f1", "auroc"]


def check(table, source, layer, expected):
    mine = table[(table.source == source) & (table.layer.isna() if layer is None else table.layer == layer)]
    pd.testing.assert_frame_equal(mine[SCORES].reset_index(drop=True), expected[SCORES], rtol=1e-4)


def test_every_control_is_scored_by_the_same_code_on_the_same_nucleotides(study, table):
    check(
        table,
        "SAE (topk)",
        2,
        concepts.concept_scores(*sets(study, study.structures().features(2)), study.retained(2), shuffles=0),
    )
    random = study.structures(study.parameters.random).features(3)
    check(table, "SAE, random model", 3, concepts.concept_scores(*sets(study, random), shuffles=0))
    sequences = study.structures().records.sequence.tolist()
    check(
        table,
        "5-mers",
        None,
        concepts.concept_scores(*sets(study, composition.kmers(sequences, 5)), shuffles=0),
    )
    states = hidden_states(study.model, sequences, [0, 3])
    training = hidden_states(study.model, evidence._training_sample(study, 300), [0, 3])
    for place, (source, layer) in enumerate((("embedding layer", 0), ("neurons", 3))):
        neurons = sparse.csr_matrix(controls.Neurons.fit(training[:, place]).encode(states[:, place]))
        check(table, source, layer, concepts.concept_scores(*sets(study, neurons), shuffles=0))


def test_there_is_a_row_for_every_source_layer_and_concept(study, table):
    by_layer = table.groupby("source").layer.agg(lambda layers: sorted(layers.dropna().unique()))
    assert by_layer["embedding layer"] == [0] and by_layer["5-mers"] == by_layer["one-hot window of 11"] == []
    for source in ("SAE (topk)", "SAE, random model", "untrained SAE", "neurons", "PCA", "ICA"):
        assert by_layer[source] == [1, 2, 3]
    assert not table.duplicated(["source", "layer", "group", "concept"]).any()
    assert table.null_p95.notna().equals(table.source.isin(["SAE (topk)", "SAE, random model"]))
    assert not table.discovery[table.null_p95.isna()].any()
    assert (table.f1_low <= table.f1_high).all()


def test_the_layer_of_each_source_is_chosen_on_the_selection_families(table):
    best = evidence.best_of(table)
    assert len(best) == table.groupby(["source", "group", "concept"]).ngroups
    for row in best.itertuples():
        mine = table[
            (table.source == row.source) & (table.group == row.group) & (table.concept == row.concept)
        ]
        assert row.selection_f1 == mine.selection_f1.max()


def test_leads_are_over_the_best_control_of_each_concept_and_lie_in_their_intervals(table):
    best = evidence.best_of(table)
    led = evidence.leads(best)
    assert led.source.eq("SAE (topk)").all() and len(led) == (best.source == "SAE (topk)").sum()
    for row in led.itertuples():
        rivals = best[(best.group == row.group) & (best.concept == row.concept) & (best.source != row.source)]
        assert row.control_f1 == rivals.f1.max() and row.control in set(
            rivals.source[rivals.f1 == row.control_f1]
        )
        assert row.lead == row.f1 - row.control_f1 and row.lead_low <= row.lead_high
    alone = evidence.leads(best[best.source == "SAE (topk)"])
    assert len(alone) == len(led) and alone[["control", "lead", "lead_low", "lead_high"]].isna().all(
        axis=None
    )


def test_what_explains_the_best_features_is_told_by_group(study):
    groups, best = tables.confound_groups(study), tables.confounds(study)[0]
    assert (
        groups.element.tolist() == best.concept.tolist() and groups.feature.tolist() == best.feature.tolist()
    )
    np.testing.assert_allclose(groups["R2 of all"], best.r2)
    assert {"base", "neighbours", "position", "GC and length"} < set(groups.columns)


def test_explained_features_are_marked_wherever_elements_are_shown(study):
    marked, confounds = (
        tables.element_scores(study),
        evidence.confound_table(study).set_index(["layer", "element"]),
    )
    assert len(marked) == len(study.element_scores())
    for row in marked.itertuples():
        assert row.explained == confounds.explained[row.layer, row.element]
    best = tables.best_feature(study, "S")
    assert best.explained == confounds.explained[best.layer, "S"]
    assert (tables.tracks(study, best, 1).explained == best.explained).all()


def test_tables_of_top_features_say_which_are_explained(study):
    table = tables.top_features(study, 3)
    assert set(table.kind) == {"element", "type"} and table.explained.isin([True, False]).all()
    encoded, elements = (
        study.structures(),
        table[table.kind == "element"].rename(columns={"label": "element"}),
    )
    found = confounds.explain(
        encoded.features(3), encoded.tokens, encoded.records, elements, study.parameters.seed
    )
    assert table.explained[table.kind == "element"].tolist() == found.explained.tolist()
    best, _ = tables.best_per_type(study)
    assert best.explained.isin([True, False]).all() and set(best.type) == set(study.type_scores().type)


def test_types_that_cannot_be_tested_leave_tables_and_figures_that_say_so(study, records_file, tmp_path):
    plain = tmp_path / "plain.parquet"
    pd.read_parquet(records_file).drop(columns="family").to_parquet(plain)
    other = Study(replace(study.parameters, types=str(plain), run=str(tmp_path / "run")))
    assert evidence.type_table(other).empty
    effects, numbers = tables.type_effects(other)
    assert effects.empty and numbers["pairs"] == 0
    shown, numbers = tables.surviving_types(other, [1, 3])
    assert shown.empty and numbers["shown"] == 0
    for chart in (figures.type_effects(effects), figures.type_features(shown)):
        assert "no feature" in chart.to_dict()["description"].lower()


def test_figure_5_shows_survivors_alone(study, monkeypatch):
    live = np.flatnonzero(study.retained(3))[:10]
    rows = [
        {"source": source, "layer": 3, "feature": feature, "type": "hairpin"}
        for source in ("SAE (topk)", evidence.RANDOM_MODEL)
        for feature in live
    ]
    tested = pd.DataFrame(rows).assign(effect=1.0, adjusted_effect=1.0, significant=True, replicates=False)
    tested.loc[:2, "replicates"] = True
    tested.loc[2, "effect"] = -1.0
    monkeypatch.setattr(evidence, "type_table", lambda study: tested)
    shown, rest = evidence.shown_types(study, 3)
    assert set(shown.feature) == set(live[:2]) and rest == 8
    nothing, rest = evidence.shown_types(study, 1)
    assert nothing.empty and rest == 0
    table, numbers = tables.surviving_types(study, [1, 3])
    assert numbers["shown"] == 2 and numbers["left_out"] == 8 and set(table.explained) <= {True, False}
    effects, numbers = tables.type_effects(study)
    assert effects.to_dict("records") == [{"layer": 3, "type": "hairpin", "surviving": 2, "tested": 10}]
    assert numbers["random_surviving"] == 0 and numbers["significant"] == 10


def test_recurrence_compares_seeds_sizes_and_random_directions(study):
    pairs, shares = evidence.recurrence_table(study)
    assert (
        pairs.groupby("layer").comparison.agg(list).map(sorted).tolist()
        == [["a random dictionary", "another seed", "the other size"]] * 3
    )
    seeds = pairs[pairs.comparison == "another seed"]
    assert (seeds.seed == 1).all() and (seeds.latents == 3 * 32).all()
    assert (pairs[pairs.comparison == "the other size"].latents == 3 * 32).all()
    assert (pairs[pairs.comparison == "the other size"].features <= 2 * 32).all()
    summed = shares.groupby("layer").features.sum()
    assert summed.tolist() == seeds.set_index("layer").features.loc[summed.index].tolist()
    with pytest.raises(ValueError, match="set replicates to 1 or more"):
        evidence.recurrence_table(Study(replace(study.parameters, replicates=0)))


def test_fidelity_stands_between_the_model_and_its_ablation(study):
    table, numbers = tables.fidelity(study)
    known = table[table.loss_recovered.notna()]
    assert (known[known.variant == "mean ablation"].loss_recovered == 0).all()
    assert (table[table.variant == "language model"].kl == 0).all()
    assert (
        set(study.parameters.architectures) < set(table.variant) and numbers["rnas"] <= evidence.FIDELITY_RNAS
    )


def test_findings_are_made_of_this_study(study):
    found = claims.table(evidence.findings(study)).set_index("claim")
    best = evidence.best_of(evidence.concept_table(study))
    stem = best[(best.concept == "stem") & (best.source == "SAE (topk)")].iloc[0]
    assert found.found["a stem feature exists"] == stem.f1
    rivals = best[(best.concept == "stem") & (best.source != "SAE (topk)")]
    assert found.control_found["a stem feature exists"] == rivals.f1.max()
    assert (found.verdict[found.rule == "trend over layers"] == claims.UNKNOWN).all()  # three layers


# ---- verdicts on data whose truth is known


@pytest.fixture(scope="module")
def annotated(records_file):
    records = add_elements(pd.read_parquet(records_file))
    halves = [records.iloc[start::2].reset_index(drop=True) for start in (0, 1)]
    return [(token_table(half), half) for half in halves]


def scores(annotated, planted: bool, seed: int = 0) -> pd.DataFrame:
    """Concept scores of 60 features of noise, of which two follow stems and hairpin loops if `planted`."""
    rng, both = np.random.default_rng(seed), []
    for tokens, records in annotated:
        noise = rng.random((len(tokens), 60)) * (rng.random((len(tokens), 60)) < 0.1)
        for feature, letter in enumerate("SH" if planted else ""):
            hit = (tokens.element == letter).to_numpy() & (rng.random(len(tokens)) < 0.8)
            noise[:, feature] = hit * rng.uniform(0.5, 1, len(tokens))
        both.append((sparse.csr_matrix(noise), annotate(tokens, records, ["element"])))
    families = tuple(records.family.tolist() for _, records in annotated)
    return concepts.concept_scores(*both, shuffles=20, families=families, bootstraps=200)


def verdicts(table: pd.DataFrame, control: pd.DataFrame) -> dict[str, str]:
    led = evidence.leads(
        pd.concat([table.assign(source="SAE"), control.assign(source="control")], ignore_index=True)
    )
    rows = led.set_index("concept").assign(explained=False)
    return {name: claims.element_feature(name, rows.loc[name]).verdict for name in ("stem", "hairpin loop")}


def test_planted_features_of_stems_and_hairpins_are_all_found_and_the_claims_hold(annotated):
    table = scores(annotated, planted=True)
    found = table[concepts.discoveries(table)].set_index("concept")
    assert (
        set(found.index) == {"stem", "hairpin loop"}
        and found.feature["stem"] == 0
        and found.feature["hairpin loop"] == 1
    )
    assert verdicts(table, scores(annotated, planted=False, seed=9)) == {
        "stem": claims.HOLDS,
        "hairpin loop": claims.HOLDS,
    }


def test_a_control_that_finds_the_same_leaves_a_claim_weak(annotated):
    table, control = (scores(annotated, planted=True, seed=seed) for seed in (0, 1))
    assert verdicts(table, control) == {"stem": claims.WEAKLY, "hairpin loop": claims.WEAKLY}


@pytest.mark.parametrize("seed", range(3))
def test_in_noise_nothing_is_found_and_no_claim_holds(annotated, seed):
    table = scores(annotated, planted=False, seed=seed)
    assert not concepts.discoveries(table).any()
    assert verdicts(table, scores(annotated, planted=False, seed=seed + 9)) == {
        "stem": claims.NOT,
        "hairpin loop": claims.NOT,
    }
