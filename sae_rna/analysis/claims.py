"""The paper's claims, each with what is found here, what its control does, and a verdict that follows from rules.

The rules know nothing of the model at hand: other data give other verdicts. They are `RULES`, which the claims page prints.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import permutation_test, spearmanr

HOLDS, WEAKLY, NOT, UNKNOWN = "holds", "holds weakly", "does not hold here", "cannot be told"
LEVEL = 0.05
"""Of every test, and of the false discovery rate."""
FEWEST_LAYERS = 4
"""Four values have 24 orders: with fewer, no order is rarer than `LEVEL`."""
FEWEST_INSTANCES = 10
"""Of an element in the held-out records."""

TREND, FEATURE, COUNT = "trend over layers", "a feature for an element", "how many concepts"
RULES = {
    TREND: {
        HOLDS: f"rank correlation with the layer in the claimed direction, one-sided permutation p <= {LEVEL:g}, "
        "and the control has no such trend",
        WEAKLY: "the same trend, but the control has one, too",
        NOT: "no such trend",
        UNKNOWN: f"fewer than {FEWEST_LAYERS} layers",
    },
    FEATURE: {
        HOLDS: "the interval of its held-out F1 lies above chance (an always-on feature and the null's 95th percentile), that of its lead "
        "over the best control above 0, and its confounds do not explain it",
        WEAKLY: "the interval lies above chance, but that of the lead reaches 0 or its confounds explain it",
        NOT: "the interval reaches down to chance",
        UNKNOWN: f"fewer than {FEWEST_INSTANCES} instances in the held-out records, or a single family, so that there are no intervals",
    },
    COUNT: {
        HOLDS: f"more than half of those tested are found at a false discovery rate of {LEVEL:g}, and more than in the control",
        WEAKLY: "some are found, and more than in the control",
        NOT: "none is found, or no more than in the control",
        UNKNOWN: "no concept could be tested",
    },
}


class Finding(NamedTuple):
    """One row of the claims table."""

    claim: str
    measured: str
    """What the number is."""
    found: float
    control: str
    """What the number is compared with."""
    control_found: float
    verdict: str
    rule: str
    """A key of `RULES`."""
    why: str


def trend(
    claim: str, measured: str, by_layer: pd.Series, control: str, control_by_layer: pd.Series, direction: int
) -> Finding:
    """Whether a quantity rises (`direction` 1) or falls (-1) over the layers, and more than by the architecture alone.

    `by_layer` and `control_by_layer` have the layer as index; missing values are left out. `found` is Spearman's rank correlation.
    """
    (rho, p), (control_rho, control_p) = (
        _rank_correlation(values, direction) for values in (by_layer, control_by_layer)
    )
    if np.isnan(rho):
        verdict, why = UNKNOWN, f"{len(by_layer.dropna())} layers"
    elif p > LEVEL:
        verdict, why = NOT, f"p = {p:.2g}"
    elif control_p <= LEVEL:
        verdict, why = WEAKLY, f"p = {p:.2g}, but the control's is {control_p:.2g}"
    else:
        verdict, why = (
            HOLDS,
            f"p = {p:.2g}, the control's "
            + ("cannot be told" if np.isnan(control_p) else f"is {control_p:.2g}"),
        )
    return Finding(claim, measured, rho, control, control_rho, verdict, TREND, why)


def _rank_correlation(by_layer: pd.Series, direction: int) -> tuple[float, float]:
    """Spearman's rho with the layer, and its one-sided p-value by permutation (exact for few layers); NaN where it cannot be had."""
    values = by_layer.dropna()
    if len(values) < FEWEST_LAYERS:
        return np.nan, np.nan
    if values.nunique() == 1:
        return 0.0, 1.0
    layer, value = values.index.to_numpy(float), values.to_numpy(float)
    test = permutation_test(
        (value,),
        lambda shuffled: spearmanr(layer, shuffled).statistic,
        permutation_type="pairings",
        alternative="greater" if direction > 0 else "less",
        n_resamples=9999,
        rng=np.random.default_rng(0),
    )
    return float(test.statistic), float(test.pvalue)


def element_feature(claim: str, best: pd.Series) -> Finding:
    """Whether a feature for an element exists.

    best : its row with f1, f1_low, base_f1, null_p95, elements, the best control with control_f1 and lead_low (the lower end of the lead's
        interval; all three missing where there is no control), and explained (by its confounds)
    """
    chance, control = max(best.base_f1, best.null_p95), best.control if pd.notna(best.control) else "none"
    if best.elements < FEWEST_INSTANCES:
        verdict, why = UNKNOWN, f"{best.elements:.0f} instances"
    elif pd.isna(best.f1_low):
        verdict, why = UNKNOWN, "no interval"
    elif not best.f1_low > chance:
        verdict, why = NOT, f"interval from {best.f1_low:.3f}, chance {chance:.3f}"
    elif control != "none" and not best.lead_low > 0:
        verdict, why = (
            WEAKLY,
            f"above chance ({chance:.3f}), but its lead over {control} starts at {best.lead_low:+.3f}",
        )
    elif best.explained:
        verdict, why = WEAKLY, f"above chance ({chance:.3f}) and all controls, but its confounds explain it"
    else:
        verdict, why = (
            HOLDS,
            f"interval from {best.f1_low:.3f}, chance {chance:.3f}, lead from {best.lead_low:+.3f}",
        )
    return Finding(
        claim, "best held-out F1", best.f1, f"best control: {control}", best.control_f1, verdict, FEATURE, why
    )


def concepts_found(
    claim: str, measured: str, found: int, tested: int, control: str, control_found: int
) -> Finding:
    """Whether features align with concepts: of `tested` concepts, `found` have a feature that survives, in the control `control_found`."""
    if not tested:
        verdict = UNKNOWN
    elif not found or found <= control_found:
        verdict = NOT
    else:
        verdict = HOLDS if found > tested / 2 else WEAKLY
    return Finding(claim, measured, found, control, control_found, verdict, COUNT, f"{found} of {tested}")


def table(findings: list[Finding]) -> pd.DataFrame:
    """tab-claims."""
    return pd.DataFrame(findings)


def rules() -> pd.DataFrame:
    """tab-rules: what each verdict takes, by kind of claim."""
    return pd.DataFrame(
        [
            {"rule": rule, "verdict": verdict, "if": text}
            for rule, cases in RULES.items()
            for verdict, text in cases.items()
        ]
    )
