"""The structure audit, corrected: what a mutation does to hidden states, and whether it follows base pairs.

After the three rungs of rna-structure-audit (Tower 2026, doi:10.5281/zenodo.21362717), with another null: the
structure is rotated along its RNA, so that helices and loops keep their lengths. The layer is chosen on other
families, states are float64, and an effect below a millionth of a state's norm is none.

Shapes: H blocks of the model, P mutated of L nucleotides, N pairs, T nucleotides of a family,
R rotations.
"""

import copy

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from sae_rna.analysis.statistics.nulls import against_null
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.records.composition import encode_bases
from sae_rna.records.structure import pair_table

BATCH_TOKENS = 2048  # tokens whose states of all layers are held at a time
NONE = 1e-6  # share of a state's norm below which a change of it is none
ROTATIONS = 199
FEWEST = 3  # inner pairs of an RNA that is audited, as in the package
#: What is measured: the first two are its first two rungs, the others the third.
RUNGS = {
    "base": "stems above loops, same base",
    "neighbours": "stems above loops, same base and one before",
    "partner": "partner above its neighbours",
    "precision": "share of partners above both neighbours",
}
NATURAL = "as it is"
_COLUMNS = "model rung arm family sequences layer value chance null_p95 p_value".split()


class Mutator:
    """A language model in float64, which shows what a complemented base does to all states."""

    def __init__(self, model: LanguageModel):
        self.model, self.base = model, copy.deepcopy(model.model.base_model).double()

    @torch.inference_mode()
    def effects(self, sequence: str, positions: np.ndarray) -> np.ndarray:
        """Cosine distance of every nucleotide's state once the base at a position is complemented, [H, P, L].

        0 where the state changes by less than `NONE` of its norm.
        """
        model, columns = self.model, slice(self.model.first, self.model.first + len(sequence))
        (tokens,) = model.tokenize([sequence])["input_ids"]
        complement = model.base_ids[3 - encode_bases([sequence])[0][positions]]  # of A, C, G, U: U, G, C, A
        mutants = tokens.repeat(len(positions), 1)
        mutants[torch.arange(len(positions)), model.first + torch.as_tensor(positions)] = complement
        own_HLD, found = self._states(tokens[None], columns)[:, 0], []
        for rows in mutants.split(max(1, BATCH_TOKENS // len(tokens))):
            state_HPLD = self._states(rows, columns)
            similar = torch.nn.functional.cosine_similarity(state_HPLD, own_HLD[:, None], dim=-1)
            change = (state_HPLD - own_HLD[:, None]).norm(dim=-1) / own_HLD[:, None].norm(dim=-1)
            found.append(torch.where(change < NONE, 0.0, 1 - similar).cpu())
        return torch.cat(found, 1).numpy()

    def _states(self, rows: torch.Tensor, columns: slice) -> torch.Tensor:
        options = {"attention_mask": torch.ones_like(rows), "output_hidden_states": True}
        return torch.stack(self.base(input_ids=rows, **options).hidden_states[1:])[:, :, columns]


def watson_crick(sequence: str, structure: str) -> np.ndarray:
    """Both positions of every Watson-Crick pair, [N, 2], i < j."""
    partner, codes = pair_table(structure), encode_bases([sequence])[0]
    i = np.nonzero(partner > np.arange(len(partner)))[0]
    pairs = np.stack([i, partner[i]], axis=1)
    return pairs[(codes[i] >= 0) & (codes[pairs].sum(1) == 3)]  # A, C, G and U are 0 to 3


def inner_pairs(sequence: str, structure: str) -> np.ndarray:
    """Those of `watson_crick` that have one such pair on either side in their helix."""
    pairs = watson_crick(sequence, structure)
    there = {(i, j) for i, j in pairs.tolist()}
    inner = [{(i - 1, j + 1), (i + 1, j - 1)} <= there for i, j in pairs.tolist()]
    return pairs[np.array(inner, bool)]


def partner_lead(effect_HPL: np.ndarray, row_N: np.ndarray, j_N: np.ndarray) -> np.ndarray:
    """How much more the mutation of row `row_N` changes position `j_N` than either of its neighbours,
    [H, N]."""
    at = lambda shift: effect_HPL[:, row_N, j_N + shift]  # noqa: E731
    return at(0) - np.maximum(at(-1), at(1))


def mirrored(sequence: str, structure: str, _rng) -> tuple[str, str]:
    """Both read backwards: all pairs stay complementary, but no family has such a sequence."""
    return sequence[::-1], structure[::-1].translate(str.maketrans("()[]{}<>", ")(][}{><"))


def redrawn(sequence: str, structure: str, rng: np.random.Generator) -> tuple[str, str]:
    """The same structure, its Watson-Crick pairs in each other's places and by chance the other way round:
    composition and complementarity stay, the sequence of the family goes."""
    letters, pairs = np.array(list(sequence)), watson_crick(sequence, structure)
    letters[pairs] = rng.permuted(letters[rng.permutation(pairs)], axis=1)
    return "".join(letters), structure


ARMS = {"mirrored": mirrored, "pairs redrawn": redrawn}


def audit_rnas(records: pd.DataFrame, families: int, sequences: int, longest: int, seed: int) -> pd.DataFrame:
    """Of at most so many families at most so many RNAs each, drawn by `seed`: of 20 to `longest` nt, of A, C,
    G and U alone, and with `FEWEST` inner pairs. A record of no known family is one of its own."""
    fit = records.sequence.str.fullmatch("[ACGU]+") & records.sequence.str.len().between(20, longest)
    usable = records[fit]
    usable = usable.assign(family=usable.family.fillna(usable.id) if "family" in usable else usable.id)
    chosen = [usable.head(0)]
    for _, rows in usable.sample(frac=1, random_state=seed).groupby("family", sort=False):
        rows = rows.head(2 * sequences)
        pairs = [len(inner_pairs(*rna)) for rna in zip(rows.sequence, rows.secondary_structure)]
        rows = rows[np.array(pairs) >= FEWEST].head(sequences)
        chosen += [rows] * bool(len(rows))
        if len(chosen) > families:
            break
    return pd.concat(chosen, ignore_index=True)


def ladder(models: dict[str, LanguageModel], rnas: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Every rung for each model and family: a row per model, rung, arm and family.

    The layer is the one in which the other families' mean is highest: without two families there are no rows.
    Columns model, rung (of `RUNGS`), arm
    (`NATURAL`, or of `ARMS`), family, sequences, layer, value, and of the rotations chance (their mean),
    null_p95 and p_value, which the arms lack.

    - base: effect of a mutation on the state at its own position, divided by its mean over the same base in
      the family, in stems less that in loops; neighbours: likewise, the base before being the same too
    - partner: mean `partner_lead` of the inner pairs, mutated on either side; precision: share of them
      above 0
    """
    if rnas.family.nunique() < 2:
        return pd.DataFrame(columns=_COLUMNS)
    tables = [_one_model(Mutator(model), rnas, seed).assign(model=name) for name, model in models.items()]
    return pd.concat(tables, ignore_index=True)[_COLUMNS]


def _one_model(mutator: Mutator, rnas: pd.DataFrame, seed: int) -> pd.DataFrame:
    rng, groups = np.random.default_rng(seed), rnas.groupby("family", sort=False)
    families = [name for name, _ in groups]
    measured = [_measured(mutator, rows, rng) for _, rows in tqdm(groups, "audit", delay=1)]
    rows = []
    for rung, arm in measured[0]:
        natural_FH = np.stack([values[rung, NATURAL][0] for values in measured])
        best_F = np.argmax(natural_FH.sum(0) - natural_FH, axis=1)
        for family, best, values in zip(families, best_F, measured):
            value, null_R = values[rung, arm][0, best], values[rung, arm][1:, best]
            against = against_null(np.array([value]), null_R[:, None])
            row = {"rung": rung, "arm": arm, "family": family, "sequences": (rnas.family == family).sum()}
            row |= {"layer": best + 1, "value": value, "chance": null_R.mean() if len(null_R) else np.nan}
            rows.append(row | {name: against[name][0] for name in ("null_p95", "p_value")})
    return pd.DataFrame(rows)


def _measured(mutator: Mutator, rnas: pd.DataFrame, rng) -> dict[tuple[str, str], np.ndarray]:
    """Values of one family by rung and arm, [1 + R, H]: as it is and rotated, or [1, H] of an arm."""
    effects = [mutator.effects(sequence, np.arange(len(sequence))) for sequence in rnas.sequence]
    values = {
        rung: _stems_above_loops(rnas, effects, reach) for reach, rung in enumerate(("base", "neighbours"))
    }
    known = [inner_pairs(*rna) for rna in zip(rnas.sequence, rnas.secondary_structure)]
    leads = [_leads(known, effects, rotation) for rotation in range(ROTATIONS + 1)]
    values["partner"] = np.stack([lead_HN.mean(1) for lead_HN in leads])
    values["precision"] = np.stack([(lead_HN > 0).mean(1) for lead_HN in leads])
    found = {(rung, NATURAL): value for rung, value in values.items()}
    for arm, change in ARMS.items():
        parts = []
        for rna in zip(rnas.sequence, rnas.secondary_structure):
            sequence, structure = change(*rna, rng)
            mutated, read = _both_ways(inner_pairs(sequence, structure))
            parts.append(partner_lead(mutator.effects(sequence, mutated), np.arange(len(mutated)), read))
        lead_HN = np.concatenate(parts, 1)
        found |= {("partner", arm): lead_HN.mean(1)[None], ("precision", arm): (lead_HN > 0).mean(1)[None]}
    return found


def _both_ways(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions that are mutated, and their partners."""
    i, j = pairs.T
    return np.concatenate([i, j]), np.concatenate([j, i])


def _offset(length: int, rotation: int) -> int:
    """How far a rotation goes, none in the first: the RNAs of a family, copies of one structure, go the same
    share of their lengths."""
    return 1 + (rotation - 1) * (length - 1) // ROTATIONS if rotation else 0


def _stems_above_loops(rnas: pd.DataFrame, effects: list[np.ndarray], before: int) -> np.ndarray:
    """[1 + R, H] of the rungs base and neighbours: 0 or 1 bases `before` are held the same."""
    own_TH = np.concatenate([effect_HLL.diagonal(axis1=1, axis2=2).T for effect_HLL in effects])
    codes = encode_bases(rnas.sequence)
    context_T = np.concatenate([code_L + before * 4 * (1 + np.r_[-1, code_L[:-1]]) for code_L in codes])
    same = context_T[:, None] == np.unique(context_T)
    mean_TH = (same / same.sum(0)).astype(float) @ (same.T @ own_TH)
    relative_TH = np.divide(own_TH, mean_TH, out=np.ones_like(own_TH), where=mean_TH > 0)
    stems = [pair_table(structure) >= 0 for structure in rnas.secondary_structure]
    stem_RT = np.stack([np.concatenate([np.roll(stem_L, _offset(len(stem_L), rotation)) for stem_L in stems])
                        for rotation in range(ROTATIONS + 1)])  # fmt: skip
    weight_RT = stem_RT / stem_RT.sum(1, keepdims=True) - ~stem_RT / (~stem_RT).sum(1, keepdims=True)
    return weight_RT @ relative_TH


def _leads(known: list[np.ndarray], effects: list[np.ndarray], rotation: int) -> np.ndarray:
    """`partner_lead` of a family's inner pairs, [H, N], mutated on either side, all structures rotated.

    A pair whose partner comes to an end of its RNA is left out.
    """
    parts = []
    for pairs, effect_HLL in zip(known, effects):
        length = effect_HLL.shape[-1]
        mutated, read = _both_ways((pairs + _offset(length, rotation)) % length)
        inside = (read > 0) & (read < length - 1)
        parts.append(partner_lead(effect_HLL, mutated[inside], read[inside]))
    return np.concatenate(parts, 1)


def rung_table(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """`ladder` with families together: a row per rung, arm and model.

    value is the mean over families and low to high its 95 % interval (families resampled); chance is the mean
    of the rotations; above of families lie above the 95th percentile of their rotations (5 % do by chance);
    layers are those chosen.
    """

    def one(of: pd.DataFrame) -> dict:
        draws = np.random.default_rng(seed).integers(len(of), size=(2000, len(of)))
        low, high = np.percentile(of.value.to_numpy()[draws].mean(1), (2.5, 97.5))
        above = (of.value > of.null_p95).sum() if of.null_p95.notna().all() else pd.NA
        layers = ", ".join(map(str, sorted(of.layer.unique())))
        return {"value": of.value.mean(), "low": low, "high": high, "chance": of.chance.mean(),
                "above": above, "families": len(of), "layers": layers}  # fmt: skip

    keys = ["rung", "arm", "model"]
    columns = [*keys, "value", "low", "high", "chance", "above", "families", "layers"]
    table = pd.DataFrame(
        [dict(zip(keys, key)) | one(of) for key, of in rows.groupby(keys, sort=False)], columns=columns
    )
    order = {name: place for place, name in enumerate([*RUNGS, NATURAL, *ARMS])}
    return table.sort_values(
        ["rung", "arm"], key=lambda names: names.map(order), kind="stable", ignore_index=True
    )
