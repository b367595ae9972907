"""Which features tell two groups of RNAs apart, beyond length and GC content? Families are the unit.

What is compared is the share of an RNA's nucleotides on which a feature fires, a mean for each family.
Families are compared with those of the other group that are like them in length and GC content alone. Where
families are not known, a group has a single one, or both share one, RNAs are the unit, compared within those.
Shapes: T nucleotides, S RNAs, U units, F features, Z confounders, B resamples, P places.
"""

import difflib
import fnmatch
import math
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.model_selection import GroupKFold

from sae_rna.analysis.controls import latents
from sae_rna.analysis.statistics import permutation
from sae_rna.analysis.statistics.nulls import q_values
from sae_rna.analysis.statistics.probing import probe
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import hidden_states
from sae_rna.parameters import CLAUSE, is_query, resolve
from sae_rna.records.composition import kmer_frequencies, kmer_names, length_and_gc
from sae_rna.records.readers import read_records
from sae_rna.records.splits import places, select_length, uniform
from sae_rna.records.structure import ELEMENTS, add_elements
from sae_rna.sae.activations import Autoencoders
from sae_rna.sae.encoding import token_table
from sae_rna.sae.features import dense

MOST = 400  # RNAs of a group that are encoded; families share them
RESAMPLES = 500  # of the units, for intervals
UNITS = {36: 3, 16: 2, 0: 1}  # units from which on length and GC content are cut into so many classes each
TENTHS = 10  # parts of an RNA from its 5' to its 3' end
FEWEST, FEW = 3, 10  # units that each group needs, and below which the page warns
EXPLAINED = 0.5  # share of an effect of which less is left where a 3-mer explains it
SHOWN = 12  # features of which is shown where they fire
DIFFERS, COMPOSITION, ALIKE = "differs", "differs as a 3-mer does", "does not differ"


def groups(a: str | None, b: str | None, records: pd.DataFrame, longest: int, seed: int = 0) -> pd.DataFrame:
    """The RNAs of two groups, of at most `longest` nt, with `group` (A or B) and its `name`.

    a, b : a file, or conditions on columns of `records`; None for the types of most families
    records : those with `split`, of which the ones that autoencoders are trained on are left out

    At most `MOST` of each, of as many families as there are. Raises ValueError where an RNA is in both groups
    and where a group has none.
    """
    records, found = records[records.split != "train"], {}
    for place, (group, text) in enumerate(zip("AB", (a, b))):
        text = text or _commonest(records, place)
        rows = select(text, records) if is_query(text) else _read(text, records)
        rows = select_length(rows.reset_index(drop=True), longest)
        family = rows.get("family", rows.id).fillna(rows.id)
        nth = places(rows.id.map(lambda name: uniform(seed, name)), [family])
        rows = add_elements(rows.loc[nth.sort_values(kind="stable").index[:MOST].sort_values()])
        found[group] = rows.assign(group=group, name=_name(text))
    if (twice := found["A"].sequence.isin(found["B"].sequence)).any():
        fault = f"record '{found['A'].id[twice.idxmax()]}' of group_a is in group_b, too ({twice.sum()} are)"
        raise ValueError(f"{fault}: let the groups share no RNA")
    columns = ["id", "sequence", "secondary_structure", "element", "family", "group", "name"]
    shared = [column for column in columns if all(column in rows for rows in found.values())]
    return pd.concat([rows[shared] for rows in found.values()], ignore_index=True)


def _commonest(records: pd.DataFrame, place: int) -> str:
    """Conditions for the type of most families, or, with a `place` of 1, that of second most."""
    unit = "family" if "family" in records else "id"
    counts = records.groupby("type")[unit].nunique().sort_values(ascending=False, kind="stable")
    if len(counts) <= place:
        raise ValueError("the records have one RNA type: say with group_a and group_b what is compared")
    return f'type == "{counts.index[place]}"'


def _read(text: str, records: pd.DataFrame) -> pd.DataFrame:
    """RNAs of a file. Raises ValueError for what is none, and says how a condition is written."""
    if not Path(resolve(text)).exists():
        types = records.get("type", pd.Series(dtype=object)).dropna().astype(str)
        like = _closest(text, types) or next(iter(types.value_counts().index), "tRNA")
        fault = f"{text} is no file or folder here; check the path"
        raise ValueError(f"{fault}, or write a condition such as 'type == \"{like}\"'")
    return read_records(resolve(text))


def _closest(text: str, words: pd.Series) -> str | None:
    """The word most like a text, in either case; None if none is."""
    by_lower = {word.lower(): word for word in words.unique()}
    return next((by_lower[of] for of in difflib.get_close_matches(text.lower(), by_lower, 1)), None)


def _name(text: str) -> str:
    """What figures call a group."""
    return " ".join(re.findall(r"[\"']([^\"']*)[\"']", text)) if is_query(text) else Path(text).name


def select(text: str, records: pd.DataFrame) -> pd.DataFrame:
    """The records that fulfil all conditions of `parameters.CLAUSE`; in values * and ? stand for any letters.

    Raises ValueError for a column that there is not and where no record is left.
    """
    fit, meant = pd.Series(True, records.index), ""
    for column, sign, values in re.findall(CLAUSE, text):
        if column not in records:
            raise ValueError(f"'{text}': there is no column {column}, choose {', '.join(records)}")
        patterns = [one or other for one, other in re.findall(r"\"([^\"]*)\"|'([^']*)'", values)]
        words = records[column].dropna().astype(str)
        match = {word: any(fnmatch.fnmatchcase(word, of) for of in patterns) for word in words.unique()}
        held = words.map(match).astype(bool).reindex(records.index, fill_value=False)
        fit &= ~held if sign == "!=" else held
        if sign != "!=" and not held.any() and (like := _closest(patterns[0], words)):
            meant = f'; did you mean "{like}"?'
    if not fit.any():
        known = ", ".join(records[column].dropna().astype(str).value_counts().index[:8])
        raise ValueError(f"'{text}' fits none of {len(records):,} RNAs: {column} is {known}, ...{meant}")
    return records[fit]


class Units(NamedTuple):
    """What is compared: families, or RNAs."""

    kind: str  # "family" or "RNA"
    why: str  # RNAs are the unit; empty for families
    of_S: np.ndarray  # number of each RNA's unit; -1 where nothing of the other group is like it
    in_a_U: np.ndarray
    stratum_U: np.ndarray
    confounders_UZ: np.ndarray

    @classmethod
    def of(cls, rnas: pd.DataFrame) -> "Units":
        """From the RNAs of `groups`. Raises ValueError where too few are alike."""
        family_S = permutation.family_names(rnas.get("family", pd.Series(None, rnas.index, dtype=object)))
        own_A, own_B = (set(family_S[rnas.group == group]) for group in "AB")
        reasons = {
            "a file names no families": "family" not in rnas,
            "all are of one family": len(own_A | own_B) == 1,
            "both groups have a family in common": bool(own_A & own_B),
            "a group has a single family": min(len(own_A), len(own_B)) < 2,
        }
        why = next((reason for reason, holds in reasons.items() if holds), "")
        by_rna = bool(why)
        within = pd.Series(family_S).where(pd.Series(family_S).isin(own_A & own_B), "").to_numpy()
        unit_S, names = pd.factorize(rnas.id if by_rna else family_S)
        facts = pd.DataFrame(length_and_gc(rnas.sequence), columns=["length", "gc"])
        means = facts.groupby(unit_S).mean()
        classes = next(of for least, of in UNITS.items() if len(names) >= least)
        cuts = [pd.qcut(of, classes, labels=False, duplicates="drop").fillna(0) for _, of in means.items()]
        units = means.assign(within=pd.Series(within).groupby(unit_S).first(), a=cuts[0], b=cuts[1])
        stratum_U = units.groupby(["within", "a", "b"], sort=False).ngroup()
        in_a_U = (rnas.group == "A").groupby(unit_S).first()
        kept_U = in_a_U.groupby(stratum_U).transform("nunique") == 2
        if min(in_a_U[kept_U].sum(), (~in_a_U)[kept_U].sum()) < FEWEST:
            kind = "RNAs" if by_rna else "families"
            fault = f"of the groups fewer than {FEWEST} {kind} each are alike in length and GC content"
            raise ValueError(f"{fault}: choose larger groups, or more similar ones")
        number = kept_U.cumsum().where(kept_U, 0) - 1
        stratum_U = pd.factorize(stratum_U[kept_U])[0]
        slopes = means[kept_U] - means[kept_U].mean()
        confounders_UZ = np.column_stack([np.eye(stratum_U.max() + 1)[stratum_U], slopes])
        kind = "RNA" if by_rna else "family"
        return cls(kind, why, number.to_numpy()[unit_S], in_a_U[kept_U].to_numpy(), stratum_U, confounders_UZ)

    def mean(self, value_SF) -> np.ndarray:
        """Mean of every unit over its RNAs, [U, F]."""
        used = self.of_S >= 0
        weight_S = 1 / np.bincount(self.of_S[used])[self.of_S[used]]
        means = sparse.csr_matrix((weight_S, (self.of_S[used], np.flatnonzero(used))),
                                  (len(self.in_a_U), len(self.of_S)))  # fmt: skip
        return dense(means @ value_SF)

    def left(self, value_UF: np.ndarray) -> np.ndarray:
        """What strata, length and GC content leave of values, [U, F]."""
        fitted_UF = self.confounders_UZ @ np.linalg.lstsq(self.confounders_UZ, value_UF, rcond=None)[0]
        left_UF = value_UF - fitted_UF
        return left_UF * (np.abs(left_UF).max(0) > 1e-6 * np.abs(value_UF).max(0))


def differences(
    model: LanguageModel, autoencoders: Autoencoders, summary: pd.DataFrame, rnas: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """A row for each retained feature of `summary`: `between_groups`, and where in the RNAs it fires.

    Columns place_a and place_b: share of the nucleotides of each tenth of an RNA, and of each element (in the
    order of `ELEMENTS`; 0 where there are none), on which it fires, mean over the units; features_auroc and
    kmers_auroc, with _low and _high: `separation` by all features, and by 3-mer frequencies.
    """
    tokens, share, parts = token_table(rnas), [], []
    record_T = tokens.record.to_numpy()
    ones_T = np.ones(len(tokens)) / np.bincount(record_T, minlength=len(rnas))[record_T]
    by_rna = sparse.csr_matrix((ones_T, (record_T, np.arange(len(tokens)))), (len(rnas), len(tokens)))
    at = [_places(tokens, rnas, Units.of(rnas).of_S, group) for group in "AB"]
    for layers in autoencoders.groups:
        states_TLD = hidden_states(model, rnas.sequence.tolist(), layers)
        for number, layer in enumerate(layers):
            own = summary[(summary.layer == layer) & summary.retained].feature.to_numpy()
            fires_TF = (latents(autoencoders[layer])(states_TLD[:, number])[:, own] > 0).astype(float)
            share.append(dense(by_rna @ fires_TF))
            place_a, place_b = (list(dense(of @ fires_TF).T) for of in at)
            facts = {"layer": layer, "feature": own, "place_a": place_a, "place_b": place_b}
            parts.append(pd.DataFrame(facts))
    share_SF = np.concatenate(share, axis=1)
    table = pd.concat([pd.concat(parts, ignore_index=True), between_groups(share_SF, rnas, seed)], axis=1)
    for name, values_SF in (("features", share_SF), ("kmers", kmer_frequencies(rnas.sequence, 3))):
        table[[f"{name}_{of}" for of in ("auroc", "low", "high")]] = separation(values_SF, rnas, seed)
    return table


def _places(tokens: pd.DataFrame, rnas: pd.DataFrame, unit_S: np.ndarray, group: str) -> sparse.csr_matrix:
    """Takes the mean at each place over a group's units, and over the nucleotides of each there, [P, T]."""
    record_T = tokens.record.to_numpy()
    codes = [tokens.position.to_numpy() * TENTHS // rnas.sequence.str.len().to_numpy()[record_T]]
    if "element" in tokens:
        codes.append(TENTHS + pd.Categorical(tokens.element, categories=[*ELEMENTS]).codes)
    own_T = np.flatnonzero(((rnas.group == group).to_numpy() & (unit_S >= 0))[record_T])
    place_N, own_N = np.concatenate([of[own_T] for of in codes]), np.tile(own_T, len(codes))
    both_N = place_N * (unit_S.max() + 1) + unit_S[record_T[own_N]]
    weight_N = 1 / np.bincount(both_N)[both_N]
    weight_N /= np.bincount(place_N, weight_N)[place_N]
    return sparse.csr_matrix((weight_N, (place_N, own_N)), (TENTHS + len(ELEMENTS), len(tokens)))


def between_groups(share_SF: np.ndarray, rnas: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Which features differ between the RNAs of `groups`, a row each.

    share_a, share_b : mean over the units of the share of nucleotides on which the feature fires
    effect : Hedges' g of A against B, of what strata (`Units`), length and GC content leave
    low, high : its 95 % interval, units resampled within the groups
    p_value : two-sided, units permuted between the groups within strata; q_value: Benjamini & Hochberg's
    differs : q_value at most 0.05
    kmer, kmer_effect : the 3-mer whose frequency goes most closely with the feature, and its own effect
    left : the feature's effect once that 3-mer is regressed out, too
    verdict : `DIFFERS`, `COMPOSITION` (of the effect less than half is left), `ALIKE`
    """
    units, rng = Units.of(rnas), np.random.default_rng(seed)
    mean_UF = units.mean(share_SF)
    left_UF = units.left(mean_UF)
    member = np.stack([units.in_a_U, ~units.in_a_U]).astype(float)
    most_drawn = _permutations(left_UF.shape[1])
    p_2F = permutation.permutation_p_values(left_UF, member, units.stratum_U, rng, most_drawn)
    p_value = np.minimum(1, 2 * p_2F.min(0))
    effect = permutation.effect_size(left_UF, member[:1])[0]
    low, high = _interval(left_UF, units.in_a_U, rng)
    kmer_UK = units.left(units.mean(kmer_frequencies(rnas.sequence, 3)))
    norm_F, norm_K = (np.maximum(np.linalg.norm(of, axis=0), 1e-12) for of in (left_UF, kmer_UK))
    correlation_KF = (kmer_UK / norm_K).T @ (left_UF / norm_F)
    best_F, places_F = np.abs(correlation_KF).argmax(0), np.arange(left_UF.shape[1])
    rest_UF = left_UF - kmer_UK[:, best_F] * (correlation_KF[best_F, places_F] * norm_F / norm_K[best_F])
    left = permutation.effect_size(rest_UF, member[:1])[0]
    table = pd.DataFrame({"share_a": mean_UF[units.in_a_U].mean(0), "share_b": mean_UF[~units.in_a_U].mean(0),
                          "effect": effect, "low": low, "high": high, "p_value": p_value,
                          "q_value": q_values(p_value), "kmer": np.array(kmer_names(3))[best_F]})  # fmt: skip
    table["kmer_effect"], table["left"] = permutation.effect_size(kmer_UK, member[:1])[0][best_F], left
    table["differs"] = table.q_value <= permutation.FALSE_DISCOVERIES
    explained = table.left.abs() < EXPLAINED * table.effect.abs()
    words = np.where(explained, COMPOSITION, DIFFERS)
    return table.assign(verdict=np.where(table.differs, words, ALIKE))


def _permutations(features: int) -> int:
    """How many are drawn at most: so many that a single feature of all can be a discovery."""
    return max(permutation.PERMUTATIONS, math.ceil(2 * features / permutation.FALSE_DISCOVERIES))


def _interval(value_UF: np.ndarray, in_a_U: np.ndarray, rng) -> np.ndarray:
    """95 % interval of Hedges' g, units drawn anew within each group, [2, F]."""
    sides, squares = [], 0.0
    for rows in (in_a_U, ~in_a_U):
        own_UF, count = value_UF[rows], rows.sum()
        weight_BU = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES)
        sides.append(weight_BU @ own_UF / count)
        squares = squares + np.maximum(weight_BU @ own_UF**2 - count * sides[-1] ** 2, 0)
    free = len(value_UF) - 2
    with np.errstate(divide="ignore", invalid="ignore"):
        g_BF = (sides[0] - sides[1]) / np.sqrt(squares / free) * (1 - 3 / (4 * free - 1))
    return np.percentile(np.nan_to_num(g_BF, posinf=np.inf, neginf=-np.inf), (2.5, 97.5), axis=0)


def separation(values_SF, rnas: pd.DataFrame, seed: int = 0) -> tuple[float, float, float]:
    """How surely all columns together tell the groups apart beyond length and GC content: the AUROC of a
    logistic regression on units of strata it was not fitted on, and its 95 % interval, units resampled.

    Whole strata are held out, since within one what is left of one unit tells the others'. Pairs that are
    held out together count: of two fits one may lie higher for what it was fitted on. NaN for one
    stratum, and where a draw of the units has no such pair: they are too few.
    """
    units = Units.of(rnas)
    values_UF, in_a_U = units.left(units.mean(values_SF)), units.in_a_U
    guess_U, fold_U = np.zeros((2, len(in_a_U)))
    folds, rng = min(4, units.stratum_U.max() + 1), np.random.default_rng(seed)
    if folds < 2:
        return np.nan, np.nan, np.nan
    for fold, (fit, test) in enumerate(GroupKFold(folds).split(values_UF, groups=units.stratum_U)):
        guess_U[test], fold_U[test] = probe(values_UF[fit], in_a_U[fit], values_UF[test]), fold
    ahead_AB = (1 + np.sign(guess_U[in_a_U][:, None] - guess_U[~in_a_U])) / 2
    together_AB = fold_U[in_a_U][:, None] == fold_U[~in_a_U]
    weights = [rng.multinomial(size, np.full(size, 1 / size), RESAMPLES) for size in together_AB.shape]
    a_BA, b_BB = (np.vstack([np.ones(of.shape[1]), of]) for of in weights)
    pairs_B = ((a_BA @ together_AB) * b_BB).sum(1)
    if not pairs_B.all():
        return np.nan, np.nan, np.nan
    auroc_B = ((a_BA @ (ahead_AB * together_AB)) * b_BB).sum(1) / pairs_B
    return auroc_B[0], *np.percentile(auroc_B[1:], (2.5, 97.5))


def within_family(records: pd.DataFrame, longest: int, seed: int = 0) -> pd.DataFrame:
    """`groups` within a family: natural transfer RNAs of bacteria and of the eukaryotic cytoplasm, by the
    identifiers of Sprinzl & Vassilenko 2005, NAR 33:D139; else random halves of the largest family."""
    names = {"bacterial tRNA": 'id == "tRNA1415G/D?1*"', "cytoplasmic tRNA": 'id == "tRNA1415G/D?[6-9]*"'}
    try:
        rnas = groups(names["bacterial tRNA"], names["cytoplasmic tRNA"], records, longest, seed)
        return rnas.assign(name=rnas.group.map(dict(zip("AB", names))))
    except ValueError:
        rows = select_length(records[records.split != "train"], longest)
        family = rows.get("family", pd.Series("records", rows.index)).fillna("records")
        rows = rows[family == family.mode()[0]].head(MOST).reset_index(drop=True)
        group = np.where(np.random.default_rng(seed).permutation(len(rows)) % 2, "A", "B")
        return rows.assign(group=group, name=np.where(group == "A", "one half", "the other half"))


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The `SHOWN` features that differ most surely."""
    return table[table.differs].sort_values("p_value", kind="stable").head(SHOWN)


def where(table: pd.DataFrame) -> pd.DataFrame:
    """Where the features `shown` fire, a row for each place: layer, feature, part (of the RNA, or element),
    place, and the share of its nucleotides on which it fires in A and in B."""
    names = [*(f"{number}" for number in range(1, TENTHS + 1)), *ELEMENTS.values()]
    parts = ["tenth of the RNA, from 5' to 3'"] * TENTHS + ["structural element"] * len(ELEMENTS)
    rows = [
        pd.DataFrame({"layer": of.layer, "feature": of.feature, "part": parts, "place": names,
                      "share_a": of.place_a, "share_b": of.place_b})
        for of in shown(table).itertuples()
    ]  # fmt: skip
    columns = ["layer", "feature", "part", "place", "share_a", "share_b"]
    found = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=columns)
    fires = (found.share_a + found.share_b).groupby(found.place).transform("max") > 0
    return found[fires].reset_index(drop=True)


def difference_table(table: pd.DataFrame) -> pd.DataFrame:
    """tab-differences: the features `shown`."""
    rows = shown(table)
    interval = [f"{low:+.2f} to {high:+.2f}".replace("-", "−") for low, high in zip(rows.low, rows.high)]
    columns = {"layer": "layer", "feature": "feature", "share_a": "fires in A", "share_b": "fires in B"}
    columns |= {"effect": "effect (g)", "interval": "95 % interval", "q_value": "q"}
    columns |= {"kmer": "3-mer", "left": "g beyond it", "verdict": "verdict"}
    return rows.assign(interval=interval)[[*columns]].rename(columns=columns)


def numbers(table: pd.DataFrame, rnas: pd.DataFrame) -> dict:
    """What captions and conclusion say of `differences`."""
    units = Units.of(rnas)
    kept, names = units.of_S >= 0, rnas.groupby("group").name.first()
    facts: dict = {"a": names.A, "b": names.B, "tested": len(table), "differ": int(table.differs.sum())}
    facts["composition"] = int((table.verdict == COMPOSITION).sum())
    for group, own_U in (("a", units.in_a_U), ("b", ~units.in_a_U)):
        own_S = (rnas.group == group.upper()).to_numpy()
        facts |= {f"units_{group}": int(own_U.sum()), f"rnas_{group}": int((own_S & kept).sum())}
        facts |= {f"left_out_{group}": int((own_S & ~kept).sum())}
    facts["units"] = {"RNA": "RNAs", "family": "families"}[units.kind]
    for group in "ab":
        facts[f"size_{group}"] = f"{facts[f'rnas_{group}']:,} RNAs"
        if units.kind == "family":
            facts[f"size_{group}"] = f"{facts[f'units_{group}']:,} families, " + facts[f"size_{group}"]
    facts["unit"] = "Families are the unit"
    if units.why:
        facts["unit"] = f"RNAs are the unit, since {units.why}, and kinship among them is not counted"
    if min(facts["units_a"], facts["units_b"]) < FEW:
        facts["unit"] += f". A group has fewer than {FEW} {facts['units']}: only large differences can show"
    least = [2 / (1 + most) for most in (_permutations(len(table)), permutation.PERMUTATIONS)]
    facts["least_p"] = f"{least[0]:.2g}" + f", or {least[1]:.2g} where fewer decide" * (least[0] < least[1])
    facts["listed"] = (
        f"the surest {SHOWN} of {facts['differ']:,}" if facts["differ"] > SHOWN else f"all {facts['differ']}"
    )
    if not facts["differ"]:
        facts["listed"] = "of which there are none"
    for name in ("features", "kmers"):
        value, low, high = (table[f"{name}_{of}"].iloc[0] for of in ("auroc", "low", "high"))
        known = f"{value:.2f} ({low:.2f} to {high:.2f})"
        facts[name] = known if np.isfinite(value) else f"unknown (too few {facts['units']})"
    return facts | {"letters": _letters(table.iloc[0], facts["units"])}


def _letters(row: pd.Series, units: str) -> str:
    """What the `separation` by features and by 3-mers says of letters."""
    if not np.isfinite([row.features_auroc, row.kmers_auroc]).all():
        return "whether 3-mers tell as much is unknown"
    if row.features_low <= row.kmers_auroc:
        may = "may " if row.kmers_auroc < row.features_auroc else ""
        return f"3-mers {may}tell as much, since the interval of the features does not lie above them"
    above = "the interval of the features lies above the 3-mers"
    if row.kmers_low < 0.5:
        return f"{above}, but there are too few {units} to rule letters out"
    return f"{above}, so that features tell more"
