"""Page 15: does the model know base pairs? Contacts read out of it, and the structure audit."""

import numpy as np
import pandas as pd

from sae_rna.analysis.data import in_settings
from sae_rna.analysis.language_model import RANDOM, TRAINED
from sae_rna.analysis.statistics import audit
from sae_rna.analysis.statistics.contacts import chance_precision, contact_precision, contact_scores
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.records.splits import settings
from sae_rna.records.structure import pair_table

JACOBIAN, DEPENDENCIES, CHANCE = "categorical Jacobian", "nucleotide dependencies", "chance"
UNTRAINED = f"Jacobian, {RANDOM}"
LENGTHS = {60: "20 to 60 nt", 90: "61 to 90 nt", 120: "91 to 120 nt"}  # of RNAs whose contacts are read
SHORT = 65  # nucleotides in the longest RNA that is audited
SHOWN = 80  # most nucleotides of an RNA whose contact map is drawn


def contact_rnas(records: pd.DataFrame, per_split: int, seed: int) -> pd.DataFrame:
    """RNAs of every setting (`set`), as `in_lengths`: of each length at most one for 300 of `per_split`, and
    no two of a family."""
    setting = {split: name for name, splits in settings(records).items() for split in splits}
    rnas = in_lengths(records.assign(set=records.split.map(setting))).sample(frac=1, random_state=seed)
    family = rnas.family.fillna(rnas.id) if "family" in rnas else rnas.id
    rnas = rnas[~family.duplicated()].groupby(["set", "length"]).head(max(1, per_split // 300))
    return rnas.sort_values(["set", "length"], kind="stable", ignore_index=True)


def in_lengths(records: pd.DataFrame) -> pd.DataFrame:
    """Those of one of `LENGTHS` (`length`) and of a `set` that have pairs and hold A, C, G and U alone."""
    length = pd.cut(records.sequence.str.len(), [19, *LENGTHS], labels=[*LENGTHS.values()]).astype(object)
    fit = records.sequence.str.fullmatch("[ACGU]+") & records.secondary_structure.str.contains(
        "(", regex=False
    )
    return records.assign(length=length)[fit].dropna(subset=["set", "length"])


def contacts(models: dict[str, LanguageModel], rnas: pd.DataFrame) -> pd.DataFrame:
    """Precision of predicted contacts, among as many as there are pairs: a row per RNA and predictor.

    Both scores of the language model, the Jacobian of the same architecture with random weights, and what
    contacts at random would have. Without models (`masked_models`) there are no rows.
    """
    rows = []
    for rna in rnas.itertuples() if models else ():
        scores = {name: contact_scores(model, rna.sequence) for name, model in models.items()}
        shown = {JACOBIAN: scores[TRAINED]["jacobian"], DEPENDENCIES: scores[TRAINED]["dependency"]}
        shown |= {UNTRAINED: scores[RANDOM]["jacobian"]}
        found = {name: contact_precision(score, rna.secondary_structure) for name, score in shown.items()}
        facts = {"id": rna.id, "set": rna.set, "length": rna.length, "nucleotides": len(rna.sequence)}
        for name, precision in (found | {CHANCE: chance_precision(rna.secondary_structure)}).items():
            rows.append(facts | {"predictor": name, "precision": precision})
    return pd.DataFrame(rows, columns=["id", "set", "length", "nucleotides", "predictor", "precision"])


def contact_maps(models: dict[str, LanguageModel], rnas: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Contact scores of one RNA of every set, of at most `SHOWN` nt: that whose Jacobian is nearest to the
    set's median precision. A row per pair of positions that is paired or scores a tenth of the highest or
    more: rna, precision, i < j (from 1), bases, jacobian, dependency (both highest 1), paired."""
    tables = []
    for name, of in scores[scores.predictor == JACOBIAN].groupby("set", sort=False):
        short = of[of.nucleotides <= SHOWN]
        if short.empty:
            continue
        row = short.loc[(short.precision - of.precision.median()).abs().idxmin()]
        rna = rnas[rnas.id == row.id].iloc[0]
        partner = pair_table(rna.secondary_structure)
        i, j = np.triu_indices(len(partner), 1)
        found = contact_scores(models[TRAINED], rna.sequence).items()
        table = pd.DataFrame({score: values[i, j] / values.max() for score, values in found})
        table = table.assign(i=i + 1, j=j + 1, paired=partner[i] == j, nucleotides=len(partner))
        bases = np.array(list(rna.sequence))
        table["bases"] = np.char.add(bases[i], bases[j])
        table = table[table.paired | (table[["jacobian", "dependency"]] >= 0.1).any(axis=1)]
        known = f"{rna.family_name} ({row.id})" if "family_name" in rna else row.id
        tables.append(table.assign(rna=known, set=name, precision=row.precision))
    columns = "set rna nucleotides precision i j bases jacobian dependency paired".split()
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def shown_precision(maps: pd.DataFrame) -> str:
    """For the caption of `contact_maps`: the precision of each RNA, in words."""
    shown = maps.drop_duplicates("set")
    return in_settings({of: f"{value:.2f}" for of, value in zip(shown["set"], shown.precision)}) or "unknown"


def contact_numbers(scores: pd.DataFrame) -> dict:
    """For captions: how many RNAs; mean precision of both `scores` of the model, of `random` weights and by
    `chance`, in words for each setting; and that of the Jacobian in the `shortest` and `longest` RNAs."""
    means = scores.groupby(["predictor", "set"], sort=False).precision.mean()
    words = lambda of: in_settings({name: f"{value:.3f}" for name, value in means[of].items()})  # noqa: E731
    names = {"jacobian": JACOBIAN, "dependency": DEPENDENCIES, "random": UNTRAINED, "chance": CHANCE}
    facts = {name: words(of) if len(scores) else "unknown" for name, of in names.items()}
    by_length = scores[scores.predictor == JACOBIAN].groupby("length").precision.mean()
    for name, place in (("shortest", 0), ("longest", -1)):
        known = len(by_length) > 0
        facts[name] = f"{by_length.iloc[place]:.3f} ({by_length.index[place]})" if known else "unknown"
    return facts | {"rnas": scores.id.nunique()}


def audited_rnas(records: pd.DataFrame, per_split: int, seed: int) -> pd.DataFrame:
    """Two RNAs of at most `SHORT` nt of each of some families of every setting (`set`): one family for 180 of
    `per_split`."""
    sets = settings(records)
    parts = [
        audit.audit_rnas(records[records.split.isin(splits)], max(1, per_split // 180), 2, SHORT, seed)
        for splits in sets.values()
    ]
    return pd.concat([part.assign(set=setting) for part, setting in zip(parts, sets)], ignore_index=True)


def audit_numbers(rows: pd.DataFrame, rnas: pd.DataFrame) -> dict:
    """For captions: `families` audited; how often the partner of a mutated base changes more than both its
    neighbours, in words for each setting, by `partner`, by chance (`rotated`) and with `random` weights."""
    of = rows[(rows.rung == "precision") & (rows.arm == audit.NATURAL)]
    of = of.assign(set=of.family.map(rnas.drop_duplicates("family").set_index("family").set))
    own, random = (of[of.model == name].groupby("set", sort=False) for name in (TRAINED, RANDOM))
    means = {"partner": own.value, "rotated": own.chance, "random": random.value}
    facts = {"families": of.family.nunique()}
    for name, values in means.items():
        words = {setting: f"{mean:.2f}" for setting, mean in values.mean().items()}
        facts[name] = in_settings(words) or "unknown"
    return facts


def audit_table(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """tab-audit: `audit.ladder` with families together, in words."""
    table = audit.rung_table(rows, seed)
    table["rung"] = table.rung.map(audit.RUNGS)
    of = [f"{above} of {n}" if pd.notna(above) else None for above, n in zip(table.above, table.families)]
    names = {"model": "model", "rung": "measure", "arm": "sequences", "value": "mean", "low": "95 % from"}
    names |= {"high": "to", "chance": "rotated", "above": "families above", "layers": "layer"}
    table = table.assign(above=of).rename(columns=names)[[*names.values()]]
    return table.sort_values("model", kind="stable", ignore_index=True)
