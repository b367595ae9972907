"""The paper's claims, each with what is found here, what its control does, and a verdict by `RULES`.

The rules know nothing of the model at hand: other data give other verdicts.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import permutation_test, spearmanr

from sae_rna.analysis import ground_truth
from sae_rna.analysis.controls import best_of, is_found, leads
from sae_rna.analysis.type_features import surviving
from sae_rna.records.structure import ELEMENTS

HOLDS, WEAKLY, NOT, UNKNOWN = "holds", "holds weakly", "does not hold here", "cannot be told"
LEVEL = 0.05  # of every test, and of the false discovery rate
FEWEST_LAYERS = 4  # four values have 24 orders: with fewer, none is rarer than `LEVEL`
FEWEST_INSTANCES = 10  # of an element, held out
FEWEST_TYPES = 3  # of RNA, each of 3 families or more (as its test needs), for a claim about types
TREND, FEATURE, COUNT = "trend over layers", "a feature for an element", "how many concepts"
CAUSE = "how many features answer to pairing, or are needed"
MANY_PAIRING, MANY_NEEDED = 10, 3  # features for a causal claim to hold
RULES = {
    TREND: {
        HOLDS: "the rank correlation with the layer has the claimed sign, its one-sided permutation p is "
        f"{LEVEL:g} or less, and the control's is not (or there is no control of {FEWEST_LAYERS} layers)",
        WEAKLY: "the same trend, but the control has one, too",
        NOT: "no such trend",
        UNKNOWN: f"fewer than {FEWEST_LAYERS} layers have a value",
    },
    FEATURE: {
        HOLDS: "the 95 % interval of its AUROC within bases lies above chance (the null's 95th "
        "percentile), base, neighbours, position, length and GC content do not explain it, it does not lose "
        "its name in falsification, and the interval of its lead over the best control lies above 0 (or no "
        "control has the concept)",
        WEAKLY: "the same, but the interval of the lead contains 0",
        NOT: "its interval reaches down to chance, its confounds explain it, it loses its name in "
        "falsification, or the interval of its lead over the best control lies below 0",
        UNKNOWN: f"fewer than {FEWEST_INSTANCES} instances in the scored RNAs, or all of one family, so that "
        "there are no intervals",
    },
    COUNT: {
        HOLDS: "more than half of those tested are found, and more than in the control. Found is an element "
        f"whose feature is a discovery (false discovery rate {LEVEL:g}) with an interval above chance, and "
        "an RNA type that a feature prefers beyond length and GC content in the scored families, too, and "
        "of features with a name one that keeps it",
        WEAKLY: "half of them or fewer are found, but more than in the control",
        NOT: "none is found, or no more than in the control",
        UNKNOWN: f"nothing could be tested; of RNA types, fewer than {FEWEST_TYPES} with three families or "
        "more in either half",
    },
    CAUSE: {
        HOLDS: f"{MANY_PAIRING} features or more answer to pairing itself (false discovery rate {LEVEL:g}, "
        f"unseen families), at most one in the control; or {MANY_NEEDED} or more of those tried lower the "
        "masked partner's log-odds beyond all of their matched controls",
        WEAKLY: "fewer, but more than in the control",
        NOT: "none, or no more than in the control",
        UNKNOWN: "no feature was tested",
    },
}
BOTH = "all RNAs"  # of claims that need no choice, and so no setting
_PAGES = {
    "fig-layer-sparsity": "05-layers",
    "fig-controls": "08-controls",
    "fig-type-effects": "07-type-features",
    "fig-falsification": "14-ground-truth",
    "fig-pairing": "13-causes",
    "fig-interventions": "16-use",
}


class Finding(NamedTuple):
    """One claim with two numbers, what they measure and what follows; `rule` is a key of `RULES`."""

    claim: str
    measured: str
    found: float
    control: str
    control_found: float
    verdict: str
    rule: str
    why: str
    setting: str = BOTH
    evidence: str = "fig-controls"  # a key of `_PAGES`


def trend(claim: str, measured: str, by_layer, control: str, control_by_layer, direction: int) -> Finding:
    """Whether a quantity rises (`direction` 1) or falls (-1) over the layers, and its control does not.

    The series have the layer as index; missing values are left out. `found` is Spearman's rank correlation.
    """
    rho, p = _rank_correlation(by_layer, direction)
    control_rho, control_p = _rank_correlation(control_by_layer, direction)
    if np.isnan(rho):
        verdict = UNKNOWN
    elif p > LEVEL:
        verdict = NOT
    else:
        verdict = WEAKLY if control_p <= LEVEL else HOLDS
    told = f"{rho:+.2f} (p = {p:.2g})" if np.isfinite(rho) else f"unknown of {len(by_layer.dropna())} layers"
    other = f"{control_rho:+.2f} (p = {control_p:.2g})" if np.isfinite(control_rho) else "unknown"
    why = f"rank correlation of layer and {measured}: {told}; in the control ({control}): {other}"
    return Finding(claim, measured, rho, control, control_rho, verdict, TREND, why)


def _rank_correlation(by_layer: pd.Series, direction: int) -> tuple[float, float]:
    """Spearman's rho with the layer and its one-sided permutation p-value, exact for few; NaN for too few."""
    values = by_layer.dropna()
    if len(values) < FEWEST_LAYERS:
        return np.nan, np.nan
    if values.nunique() == 1:
        return 0.0, 1.0
    layer, value = values.index.to_numpy(float), values.to_numpy(float)
    rho = lambda shuffled: spearmanr(layer, shuffled).statistic  # noqa: E731
    side = "greater" if direction > 0 else "less"
    options = {"permutation_type": "pairings", "n_resamples": 9999, "rng": np.random.default_rng(0)}
    test = permutation_test((value,), rho, alternative=side, **options)
    return float(test.statistic), float(test.pvalue)


def element_feature(claim: str, best: pd.Series) -> Finding:
    """Whether a feature for an element exists; `best` is its row of `controls.leads`, with `explained` and
    `renamed`, whether it loses its name."""
    control, low = best.control if pd.notna(best.control) else "none", best.base_auroc_low
    if best.elements < FEWEST_INSTANCES or pd.isna(low):
        verdict = UNKNOWN
    elif not low > best.null_p95 or best.explained or best.renamed or best.lead_high < 0:
        verdict = NOT
    else:
        verdict = HOLDS if control == "none" or best.lead_low > 0 else WEAKLY
    measured = "AUROC within bases"
    of = f"{best.elements:.0f} instances, {measured} {best.base_auroc:.3f}"
    if pd.notna(low):
        of += f" ({low:.3f} to {best.base_auroc_high:.3f}), chance {best.null_p95:.3f}"
    of += "; its confounds explain it" if best.explained else ""
    of += "; it loses its name" if best.renamed else ""
    if control != "none":
        of += f"; best control {control} {best.control_score:.3f}, lead"
        of += f" {best.lead:+.3f} ({best.lead_low:+.3f} to {best.lead_high:+.3f})"
    return Finding(claim, measured, best.base_auroc, control, best.control_score, verdict, FEATURE, of)


def concepts_found(claim: str, measured: str, found: int, tested: int, control: str, control_found: int):
    """Whether features align with concepts: `found` of `tested` do, and `control_found` in the control."""
    if not tested:
        verdict = UNKNOWN
    elif not found or found <= control_found:
        verdict = NOT
    else:
        verdict = HOLDS if found > tested / 2 else WEAKLY
    why = f"{measured}: {found} of {tested}; {control}: {control_found}"
    return Finding(claim, measured, found, control, control_found, verdict, COUNT, why)


def causal_findings(own: pd.DataFrame, random: pd.DataFrame, used: dict) -> list[Finding]:
    """Two claims that the paper does not make, from `causes.pairing_test` of both models and
    `use.numbers`."""
    counts = [int(table.pairing.sum()) for table in (own, random)]
    claim, measured = "features answer to base pairs, not to bases", "features that answer to pairing"
    answer = _causal(claim, measured, counts[0], len(own), MANY_PAIRING, "random weights", counts[1])
    claim, measured = "the model uses these features", "features needed beyond their matched controls"
    need = _causal(claim, measured, used["used"], used["features"], MANY_NEEDED, "none", 0)
    return [answer._replace(evidence="fig-pairing"), need._replace(evidence="fig-interventions")]


def _causal(claim, measured, found: int, tested: int, many: int, control: str, control_found: int) -> Finding:
    if not tested:
        verdict = UNKNOWN
    elif found <= control_found:
        verdict = NOT
    else:
        verdict = HOLDS if found >= many and control_found <= 1 else WEAKLY
    why = f"{measured}: {found} of {tested}" + (f"; {control}: {control_found}" if control != "none" else "")
    measures = claim, measured, found, control, control_found
    return Finding(*measures, verdict, CAUSE, why, "unseen families")


def findings(concepts, explained, names, summary, random_summary, types, random_types) -> list[Finding]:
    """The paper's claims with what is found here, from seven tables.

    concepts : `controls.score_concepts`; its first two sources are that under test and the random model's
    explained : `confounds.explain_elements` of every layer's best feature of every element
    names : `ground_truth.verdicts`
    summary, random_summary : `Activations.summary` of all architectures, the shown one first; the control's
    types, random_types : `type_features.prefer_types` of both; empty where types cannot be tested
    """
    best = best_of(concepts)
    shown, random = best.source.unique()[:2]
    found = _sparsity(summary, random_summary, random)
    is_explained = explained.set_index(["setting", "layer", "element"]).explained
    keys = ["source", "setting", "group", "concept"]
    lost = set(names[names.verdict == ground_truth.LOSES][keys].itertuples(index=False, name=None))
    led = leads(best)
    led = led[led.group == "element"]
    for setting in best.setting.unique():
        of_setting = []
        for letter in "SH":
            for _, own in led[(led.setting == setting) & (led.concept == ELEMENTS[letter])].iterrows():
                own["explained"] = bool(is_explained[setting, own.layer, letter])
                own["renamed"] = (shown, setting, own.group, own.concept) in lost
                of_setting.append(element_feature(f"a {ELEMENTS[letter]} feature exists", own))
        elements = best[(best.setting == setting) & (best.group == "element")]
        above = elements.source[is_found(elements)]
        counts = [int((above == source).sum()) for source in (shown, random)]
        claim, measured = "features align with structural elements", "elements that are found"
        tested = (elements.source == shown).sum()
        of_setting.append(concepts_found(claim, measured, counts[0], tested, random, counts[1]))
        of_setting.append(_names(names[names.setting == setting], shown, random))
        own, control = (table[table.setting == setting] for table in (types, random_types))
        if len(own):
            of_setting += _selectivity(own, control, random)
        found += [finding._replace(setting=setting) for finding in of_setting]
    # one claim below the other, its settings side by side
    claims = list(dict.fromkeys(finding.claim for finding in found))
    return sorted(found, key=lambda finding: claims.index(finding.claim))


def _names(names: pd.DataFrame, shown: str, random: str) -> Finding:
    kept = names.source[names.verdict == ground_truth.KEEPS]
    counts = [int((kept == source).sum()) for source in (shown, random)]
    claim, measured = (
        "features follow the structure and not the letters",
        "named features that keep their names",
    )
    found = concepts_found(claim, measured, counts[0], int((names.source == shown).sum()), random, counts[1])
    return found._replace(evidence="fig-falsification")


def _sparsity(summary: pd.DataFrame, random_summary: pd.DataFrame, control: str) -> list[Finding]:
    claim, architectures = "layers pass from diffuse to sparse", summary.architecture.unique()
    both = summary[summary.architecture == architectures[0]], random_summary
    breadth = [table[table.density > 0].groupby("layer").sequences.mean() for table in both]
    measured = "share of the RNAs in which a live feature fires"
    found = [trend(claim, measured, breadth[0], control, breadth[1], -1)]
    if "relu-l1" in architectures[1:]:
        l0 = summary[summary.architecture == "relu-l1"].groupby("layer").density.sum()
        claim, no_control = f"{claim} (the paper's autoencoder)", pd.Series(dtype=float)
        found.append(trend(claim, "active latents a nucleotide", l0, "none", no_control, -1))
    return [finding._replace(evidence="fig-layer-sparsity") for finding in found]


def _selectivity(types: pd.DataFrame, random_types: pd.DataFrame, control: str) -> list[Finding]:
    shares, counts = [], []
    for tested in (types, random_types):
        kept = surviving(tested)
        features = tested.groupby("layer").feature.nunique()
        shares.append((kept.groupby("layer").feature.nunique() / features).fillna(0).astype(float))
        counts.append(kept.type.nunique())
    claim = "later layers are more type-selective"
    measured = "share of tested features that prefer a type beyond length and GC content"
    found = [trend(claim, measured, shares[0], control, shares[1], 1)]
    claim, measured = "features align with RNA types", "types with such a feature"
    tested = types.type.nunique()
    tested = tested if tested >= FEWEST_TYPES else 0
    found.append(concepts_found(claim, measured, counts[0], tested, control, counts[1]))
    return [finding._replace(evidence="fig-type-effects") for finding in found]


def table(findings: list[Finding]) -> pd.DataFrame:
    """tab-claims: every claim's verdict, why, and a link to the figure that shows it."""
    pages = [(of.evidence, _PAGES[of.evidence]) for of in findings]
    links = [f"[{page[3:].replace('-', ' ')}](../executed/{page}.html#{figure})" for figure, page in pages]
    rows = [(of.claim, of.setting, of.verdict, of.why) for of in findings]
    columns = ["claim", "RNAs", "verdict", "what decides"]
    return pd.DataFrame(rows, columns=columns).assign(evidence=links)


def counts(findings: list[Finding]) -> dict:
    """How many claims there are, and in words how many have each of the `verdicts` that occur."""
    counts = Counter(finding.verdict for finding in findings)
    several = {HOLDS: "hold", WEAKLY: "hold weakly", NOT: "do not hold here", UNKNOWN: "cannot be told"}
    words = {verdict: verdict if counts[verdict] == 1 else word for verdict, word in several.items()}
    verdicts = ", ".join(f"{counts[verdict]} {word}" for verdict, word in words.items() if counts[verdict])
    return {"claims": counts.total(), "verdicts": verdicts}


def rules() -> pd.DataFrame:
    """tab-rules: what each verdict takes, by kind of claim."""
    rows = [(rule, verdict, text) for rule, cases in RULES.items() for verdict, text in cases.items()]
    return pd.DataFrame(rows, columns=["kind of claim", "verdict", "if"])
