"""The paper's claims, each with what is found here, what its control does, and a verdict by `RULES`.

The rules know nothing of the model at hand: other data give other verdicts.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import permutation_test, spearmanr

from sae_rna.analysis.controls import best_of, leads
from sae_rna.analysis.type_features import surviving
from sae_rna.records.structure import ELEMENTS

HOLDS, WEAKLY, NOT, UNKNOWN = "holds", "holds weakly", "does not hold here", "cannot be told"
LEVEL = 0.05  # of every test, and of the false discovery rate
FEWEST_LAYERS = 4  # four values have 24 orders: with fewer, none is rarer than `LEVEL`
FEWEST_INSTANCES = 10  # of an element, held out
FEWEST_TYPES = 3  # of RNA, each of 3 families or more (as its test needs), for a claim about types
TREND, FEATURE, COUNT = "trend over layers", "a feature for an element", "how many concepts"
RULES = {
    TREND: {
        HOLDS: "rank correlation with the layer in the claimed direction, one-sided permutation "
        f"p <= {LEVEL:g}, and the control has no such trend",
        WEAKLY: "the same trend, but the control has one, too",
        NOT: "no such trend",
        UNKNOWN: f"fewer than {FEWEST_LAYERS} layers",
    },
    FEATURE: {
        HOLDS: "the interval of its base-stratified AUROC lies above chance (the null's 95th percentile), "
        "that of its lead over the best control above 0, and its confounds do not explain it",
        WEAKLY: "the interval lies above chance, its confounds do not explain it, and the interval of the "
        "lead reaches 0",
        NOT: "the interval reaches down to chance, its confounds explain it, or a control is clearly better",
        UNKNOWN: f"fewer than {FEWEST_INSTANCES} instances in the held-out records, or a single family, "
        "so that there are no intervals",
    },
    COUNT: {
        HOLDS: f"more than half of those tested are found at a false discovery rate of {LEVEL:g}, "
        "and more than in the control",
        WEAKLY: "some are found, and more than in the control",
        NOT: "none is found, or no more than in the control",
        UNKNOWN: f"no concept could be tested; of RNA types, fewer than {FEWEST_TYPES} with three "
        "families or more",
    },
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


def trend(claim: str, measured: str, by_layer, control: str, control_by_layer, direction: int) -> Finding:
    """Whether a quantity rises (`direction` 1) or falls (-1) over the layers, and its control does not.

    The series have the layer as index; missing values are left out. `found` is Spearman's rank correlation.
    """
    rho, p = _rank_correlation(by_layer, direction)
    control_rho, control_p = _rank_correlation(control_by_layer, direction)
    if np.isnan(rho):
        verdict, why = UNKNOWN, f"{len(by_layer.dropna())} layers"
    elif p > LEVEL:
        verdict, why = NOT, f"p = {p:.2g}"
    elif control_p <= LEVEL:
        verdict, why = WEAKLY, f"p = {p:.2g}, but the control's is {control_p:.2g}"
    else:
        other = "cannot be told" if np.isnan(control_p) else f"is {control_p:.2g}"
        verdict, why = HOLDS, f"p = {p:.2g}, the control's {other}"
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
    """Whether a feature for an element exists; `best` is its row of `controls.leads`, with `explained`."""
    chance, control = best.null_p95, best.control if pd.notna(best.control) else "none"
    low, lead = best.base_auroc_low, f"lead from {best.lead_low:+.3f} to {best.lead_high:+.3f}"
    if best.elements < FEWEST_INSTANCES:
        verdict, why = UNKNOWN, f"{best.elements:.0f} instances"
    elif pd.isna(low):
        verdict, why = UNKNOWN, "no interval"
    elif not low > chance:
        verdict, why = NOT, f"interval from {low:.3f}, chance {chance:.3f}"
    elif best.explained:
        verdict, why = NOT, "its confounds explain it"
    elif control != "none" and best.lead_high < 0:
        verdict, why = NOT, f"{control} is clearly better: {lead}"
    elif control != "none" and not best.lead_low > 0:
        verdict, why = WEAKLY, f"above chance ({chance:.3f}), but {control} is as good: {lead}"
    else:
        verdict, why = HOLDS, f"interval from {low:.3f}, chance {chance:.3f}, {lead}"
    against, measured = f"best control: {control}", "best base-stratified AUROC"
    return Finding(claim, measured, best.base_auroc, against, best.control_score, verdict, FEATURE, why)


def concepts_found(claim: str, measured: str, found: int, tested: int, control: str, control_found: int):
    """Whether features align with concepts: `found` of `tested` do, and `control_found` in the control."""
    if not tested:
        verdict = UNKNOWN
    elif not found or found <= control_found:
        verdict = NOT
    else:
        verdict = HOLDS if found > tested / 2 else WEAKLY
    return Finding(claim, measured, found, control, control_found, verdict, COUNT, f"{found} of {tested}")


def findings(concepts, explained, summary, random_summary, types, random_types) -> list[Finding]:
    """The paper's claims with what is found here, from six tables.

    concepts : `controls.score_concepts`; its first two sources are that under test and the random model's
    explained : `confounds.explain_elements` of every layer's best feature of every element
    summary, random_summary : `Activations.summary` of all architectures, the shown one first; the control's
    types, random_types : `type_features.prefer_types` of both; empty where types cannot be tested
    """
    best = best_of(concepts)
    shown, random = best.source.unique()[:2]
    found = _sparsity(summary, random_summary, random)
    is_explained = explained.set_index(["setting", "layer", "element"]).explained
    led = leads(best)
    for setting, rows in best.groupby("setting", sort=False):
        for letter in "SH":
            names = (led.setting == setting) & (led.group == "element") & (led.concept == ELEMENTS[letter])
            for _, own in led[names].iterrows():
                own["explained"] = bool(is_explained.get((setting, own.layer, letter), False))
                found.append(element_feature(f"a {ELEMENTS[letter]} feature exists ({setting})", own))
        elements = rows[rows.group == "element"]
        above = elements.source[elements.discovery & (elements.base_auroc_low > elements.null_p95)]
        counts = [(above == source).sum() for source in (shown, random)]
        claim = f"features align with structural elements ({setting})"
        measured, tested = "elements that are discoveries", (elements.source == shown).sum()
        found.append(concepts_found(claim, measured, counts[0], tested, random, counts[1]))
        own = [table[table.setting == setting] for table in (types, random_types)]
        if len(own[0]):
            found += _selectivity(*own, random, setting)
    return found


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
    return found


def _selectivity(types: pd.DataFrame, random_types: pd.DataFrame, control: str, setting: str):
    shares, counts = [], []
    for tested in (types, random_types):
        kept = surviving(tested)
        features = tested.groupby("layer").feature.nunique()
        shares.append((kept.groupby("layer").feature.nunique() / features).fillna(0).astype(float))
        counts.append(kept.type.nunique())
    claim = f"later layers are more type-selective ({setting})"
    measured = "share of tested features that prefer a type, beyond length and GC content"
    found = [trend(claim, measured, shares[0], control, shares[1], 1)]
    claim, measured = f"features align with RNA types ({setting})", "types with a feature that survives"
    tested = types.type.nunique()
    tested = tested if tested >= FEWEST_TYPES else 0
    return [*found, concepts_found(claim, measured, counts[0], tested, control, counts[1])]


def table(findings: list[Finding]) -> pd.DataFrame:
    """tab-claims: what was found and in the control, in words, the verdict and its rule."""
    found = [of.measured + _in_words(of.found, of.rule) for of in findings]
    control = [of.control + _in_words(of.control_found, of.rule) for of in findings]
    table = pd.DataFrame(findings).assign(found=found, control=control)
    return table[["claim", "verdict", "found", "control", "why", "rule"]]


def _in_words(value: float, rule: str) -> str:
    if np.isnan(value):
        return ""
    if rule == TREND:
        return f": rank correlation {value:.2f}"
    return f": {value:.0f}" if value % 1 == 0 else f": {value:.2f}"


def counts(findings: list[Finding]) -> dict:
    """How many claims there are, and how many have each verdict."""
    verdicts = [finding.verdict for finding in findings]
    names = {"hold": HOLDS, "weakly": WEAKLY, "fail": NOT, "unknown": UNKNOWN}
    return {"claims": len(verdicts)} | {name: verdicts.count(verdict) for name, verdict in names.items()}


def rules() -> pd.DataFrame:
    """tab-rules: what each verdict takes, by kind of claim."""
    rows = [(rule, verdict, text) for rule, cases in RULES.items() for verdict, text in cases.items()]
    return pd.DataFrame(rows, columns=["rule", "verdict", "if"])
