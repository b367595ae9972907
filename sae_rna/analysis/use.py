"""What features do: the language model's predictions after a feature is taken away, set, or carried over.

A nucleotide is masked whose partner in a helix can be read, and the log-odds of its true base tell how well
the model knows it. Shapes: S cases, N = 2 masked nucleotides of each, T tokens, D width, F features.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from sae_rna.analysis.causes import draw_pairs, helices
from sae_rna.analysis.fidelity import masked_log_probabilities
from sae_rna.analysis.language_model import hidden_bases
from sae_rna.analysis.statistics.pairing import intervals
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import hidden_states
from sae_rna.records.composition import NUCLEOTIDES
from sae_rna.records.structure import CANONICAL_PAIRS
from sae_rna.sae.activations import Activations
from sae_rna.sae.autoencoder import SparseAutoencoders

CASES, LONGEST = 32, 80  # RNAs, of so many nucleotides, in which states are changed
MATCHED, TESTED = 100, 20  # controls of each feature, and features, at most
DOSES, DOSED = (0, 1, 2, 3, 4), 3  # in multiples of the feature's maximum; features that take them
PROBED_RNAS = 80  # whose states give the directions that features are compared with
PLACES = "partner", "unpaired nucleotide"  # that are masked, in every case
ABLATED, TRANSPLANTED = "taken away", "carried over"

Edit = Callable[[torch.Tensor, np.ndarray, np.ndarray], torch.Tensor]
"""Standardised states [T, D], number of each one's case and its position in; what is added to them out."""


class Case(NamedTuple):
    """An RNA of which two nucleotides are masked: the partner in a pair, and an unpaired one."""

    sequence: str
    masked_N: np.ndarray  # positions from 0
    helix_R: np.ndarray  # positions of the pair's helix
    spared: int = -1  # position at which nothing is carried over


def draw_cases(records: pd.DataFrame, count: int, seed: int) -> dict[str, list[Case]]:
    """At most `count` RNAs with a masked partner, of as many families as there are.

    "natural" RNAs; and, with the same bases masked, the "single" mutant in which the next pair of the helix
    is broken, its 5' base made like its 3' base, and the "double" mutant, in which both have changed places.
    """
    rng, short = np.random.default_rng(seed), records[records.sequence.str.len() <= LONGEST]
    known = records.set_index(records.id.astype(str)).secondary_structure
    cases: dict[str, list[Case]] = {"natural": [], "single": [], "double": []}
    for pair in draw_pairs(short if len(short) else records, 2 * count, seed):
        loose = [at for at, symbol in enumerate(known[pair.record]) if symbol == "."]
        if not loose or len(cases["natural"]) == count:
            continue
        helix_N2 = next(of for of in helices(known[pair.record]) if pair.five in of[:, 0])
        place = int(np.flatnonzero(helix_N2[:, 0] == pair.five)[0])
        five, three = map(int, helix_N2[place + 1 if place + 1 < len(helix_N2) else place - 1])
        masked_N = np.array([pair.three[0], rng.choice(loose)])
        own = pair.sequence[five], pair.sequence[three]
        if "".join(own) not in CANONICAL_PAIRS:
            continue
        for name, bases in (("natural", own), ("single", own[1:] * 2), ("double", own[::-1])):
            letters = list(pair.sequence)
            letters[five], letters[three] = bases
            spared = -1 if name == "natural" else three
            cases[name].append(Case("".join(letters), masked_N, helix_N2.ravel(), spared))
    return cases


def log_odds(
    model: LanguageModel, cases: Sequence[Case], sae: SparseAutoencoders, edit: Edit | None = None
) -> np.ndarray:
    """ln(p / (1 - p)) of the true bases at the masked nucleotides [S, N], the states of a layer edited."""
    sequences, (layer,) = [case.sequence for case in cases], sae.config.layers
    odds_SN = np.empty((len(cases), len(PLACES)))
    for rows in model.batches(sequences, 4096):
        texts, masked = [sequences[row] for row in rows], [cases[row].masked_N for row in rows]
        position_T = np.concatenate([np.arange(len(text)) for text in texts])
        case_T = np.repeat(rows, [len(text) for text in texts])
        replace = edited(sae, edit, case_T, position_T) if edit else None
        logs_M4 = masked_log_probabilities(model, texts, masked, layer, replace)
        p_M = np.exp(logs_M4.astype(np.float64))[np.arange(len(logs_M4)), hidden_bases(texts, masked)]
        odds_SN[rows] = (np.log(p_M) - np.log1p(-p_M)).reshape(len(rows), -1)
    return odds_SN


def edited(sae: SparseAutoencoders, edit: Edit, case_T: np.ndarray, position_T: np.ndarray):
    """A replacement of states for `fidelity.replaced_states`: what the edit adds, in units of the model."""
    return lambda h_TD: h_TD + edit(sae.standardise(h_TD), case_T, position_T) * sae.standardise.std


def set_feature(
    sae: SparseAutoencoders, feature: int, value: float | Callable, where_T: Callable | None = None
) -> Edit:
    """A feature takes another value; all else, what the autoencoder does not explain included, stays.

    value : one for all tokens, or a function of their numbers of cases and positions that gives one for each
    where_T : such a function that says at which tokens; everywhere if None
    """
    row_D = sae.decoder_weight[0, feature]

    @torch.inference_mode()
    def edit(x_TD, case_T, position_T):
        own_T = sae.encode(x_TD[None])[0, :, feature]
        new = value(case_T, position_T) if callable(value) else value
        change_T = torch.as_tensor(new, dtype=own_T.dtype, device=own_T.device) - own_T
        if where_T is not None:
            change_T = change_T * torch.as_tensor(where_T(case_T, position_T), device=own_T.device)
        return change_T[:, None] * row_D

    return edit


def move(added_D: torch.Tensor, where_T: Callable) -> Edit:
    """Standardised states are moved along a direction."""

    def edit(_, case_T, position_T):
        return torch.as_tensor(where_T(case_T, position_T), device=added_D.device)[:, None] * added_D

    return edit


def within(cases: Sequence[Case]) -> Callable:
    """Whether a token is in the helix of its case, for `set_feature`."""
    return lambda case_T, position_T: np.array(
        [position in cases[case].helix_R for case, position in zip(case_T, position_T)]
    )


def chosen(tested: pd.DataFrame) -> tuple[int, list[int]]:
    """The layer of most pairing features by `causes.pairing_test`, and these, the surest first.

    At most `TESTED`; where there is none, the feature of the smallest p.
    """
    found = tested[tested.pairing] if tested.pairing.any() else tested.nsmallest(1, "p")
    layer = found.layer.mode().iloc[0]
    return int(layer), found[found.layer == layer].nsmallest(TESTED, "p").feature.tolist()


def matched(
    rnas: Activations, sae: SparseAutoencoders, tested: pd.DataFrame, features: list[int]
) -> np.ndarray:
    """Controls of each feature: those of its layer most like it in density and norm, [features, `MATCHED`].

    Density: share of the nucleotides on which it fires; norm: of its decoder row, times its mean activation
    there; both logarithmic, on the selection families. Pairing features are no controls; there may be fewer.
    """
    (layer,) = sae.config.layers
    rows = tested[tested.layer == layer]
    activations_TF = rnas.of_split(layer, "selection")[0]
    fires_F = np.asarray((activations_TF > 0).sum(0)).ravel()
    norm_F = torch.linalg.norm(sae.decoder_weight[0], dim=1).cpu().numpy()
    size_F = np.asarray(activations_TF.sum(0)).ravel() / np.maximum(fires_F, 1) * norm_F
    place_F2 = np.log(np.column_stack([fires_F + 1, size_F + 1e-9]))
    others = np.setdiff1d(rows.feature[~rows.pairing], features)
    spread_2 = np.maximum(place_F2[rows.feature].std(0), 1e-3)  # rounding is no difference
    distance_AB = np.linalg.norm((place_F2[features][:, None] - place_F2[others]) / spread_2, axis=-1)
    return others[distance_AB.argsort(1, kind="stable")[:, :MATCHED]]


def effects(
    model: LanguageModel, autoencoders: Mapping, rnas: Activations, tested: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """Are pairing features needed, and do they suffice? A row per feature, intervention and masked place.

    model : with its head for masked bases; tested : `causes.pairing_test`

    On selection families, which took no part in choosing the features. Taken away: a feature is 0 everywhere,
    in natural RNAs. Carried over: in the single mutant it takes its values of the double mutant, but where
    these differ and at masked bases. effect is the mean change of the log-odds of the true base, low and high
    its 95 % interval (families resampled); least and most are the smallest and the largest effect of the
    `matched` features (controls of them); beyond: the effect on the partner is below all of them (taken
    away), or above (carried over). broken is what the single mutation costs, the double one being 0.
    """
    layer, features = chosen(tested)
    sae = autoencoders[layer]
    cases = draw_cases(rnas.records[rnas.records.split == "selection"], CASES, seed)
    controls = matched(rnas, sae, tested, features)
    plain = {name: log_odds(model, of, sae) for name, of in cases.items()}
    value_STF = _features(model, cases["double"], sae)
    free = lambda case, at: at != cases["single"][case].spared and at not in cases["single"][case].masked_N  # noqa: E731
    where_T = lambda case_T, position_T: np.array([*map(free, case_T, position_T)])  # noqa: E731
    change: dict[str, dict[int, np.ndarray]] = {ABLATED: {}, TRANSPLANTED: {}}
    for feature in tqdm(map(int, {*features, *controls.ravel()}), "interventions", mininterval=1):
        values = lambda case_T, position_T: [value_STF[c][p, feature] for c, p in zip(case_T, position_T)]  # noqa: B023, E731
        away = set_feature(sae, feature, 0.0)
        over = set_feature(sae, feature, values, where_T)
        change[ABLATED][feature] = log_odds(model, cases["natural"], sae, away) - plain["natural"]
        change[TRANSPLANTED][feature] = log_odds(model, cases["single"], sae, over) - plain["single"]
    broken_N = (plain["single"] - plain["double"]).mean(0)
    rows = []
    for name, by_feature in change.items():
        for feature, own in zip(features, controls):
            other_CN = np.array([by_feature[control].mean(0) for control in own])
            low_N, high_N = intervals(by_feature[feature], np.random.default_rng(seed))
            for place, effect in enumerate(by_feature[feature].mean(0)):
                least, most = other_CN[:, place].min(), other_CN[:, place].max()
                row = {"layer": layer, "feature": feature, "intervention": name, "place": PLACES[place]}
                row |= {"effect": effect, "low": low_N[place], "high": high_N[place], "least": least}
                row |= {"most": most, "controls": len(own), "broken": broken_N[place]}
                rows.append(row | {"beyond": effect < least if name == ABLATED else effect > most})
    return pd.DataFrame(rows).assign(rnas=len(cases["natural"]))


def _features(model: LanguageModel, cases: Sequence[Case], sae: SparseAutoencoders) -> dict[int, np.ndarray]:
    """Activations of every feature in each case with its bases masked, [nucleotides, F] by number."""
    found = {}

    def look(x_TD, case_T, _):
        with torch.inference_mode():
            value_TF = sae.encode(x_TD[None])[0].cpu().numpy()
        found.update({case: value_TF[case_T == case] for case in np.unique(case_T)})
        return torch.zeros_like(x_TD)

    log_odds(model, cases, sae, look)
    return found


def dose_response(
    model: LanguageModel, autoencoders: Mapping, rnas: Activations, tested: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """What more of a feature does, beside directions of the same norm: a row per source, dose and place.

    The surest features (`DOSED`) are set to 0 to 4 times their maximum at all nucleotides of the helix, in
    the cases of `effects`. Beside them the states are moved by as much as a dose of the first feature: along
    the difference of means of stems and other nucleotides, a linear probe's direction for stems, and a random
    one. Columns source, layer, dose, place, effect (mean change of the log-odds), low, high.
    """
    layer, features = chosen(tested)
    sae, maximum = autoencoders[layer], rnas.summary.set_index(["layer", "feature"]).maximum[layer]
    cases = draw_cases(rnas.records[rnas.records.split == "selection"], CASES, seed)["natural"]
    plain_SN, where_T, edits = log_odds(model, cases, sae), within(cases), dict[tuple[str, int], Edit]()
    step = maximum[features[0]] * torch.linalg.norm(sae.decoder_weight[0, features[0]])
    directions = _directions(model, rnas, sae, seed)
    for dose in DOSES:
        for feature in features[:DOSED]:
            edits[f"feature {feature}", dose] = set_feature(sae, feature, dose * maximum[feature], where_T)
        for name, unit_D in directions.items():
            edits[name, dose] = move(dose * step * unit_D, where_T)
    rows = []
    for (source, dose), edit in tqdm(edits.items(), "doses", mininterval=1):
        change_SN = log_odds(model, cases, sae, edit) - plain_SN
        ends_2N = intervals(change_SN, np.random.default_rng(seed))
        for place, effect, low, high in zip(PLACES, change_SN.mean(0), *ends_2N):
            row = {"source": source, "layer": layer, "dose": dose, "place": place, "effect": effect}
            rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def _directions(model: LanguageModel, rnas: Activations, sae: SparseAutoencoders, seed: int) -> dict:
    """Directions of unit length [D] in standardised states, towards stems, by name; from held-out RNAs."""
    heldout = rnas.records[rnas.records.split == "heldout"]
    some = heldout.sample(min(len(heldout), PROBED_RNAS), random_state=seed)
    states_TLD = torch.from_numpy(hidden_states(model, some.sequence.tolist(), sae.config.layers))
    x_TD = sae.standardise(states_TLD.to(sae.decoder_weight.device))[:, 0].cpu().numpy()
    base_T, element_T = (np.array(list("".join(some[name]))) for name in ("sequence", "element"))
    in_stem_T = element_T[np.isin(base_T, list(NUCLEOTIDES))] == "S"
    probe = LogisticRegression(solver="newton-cholesky").fit(x_TD, in_stem_T)
    found = {"difference of means": x_TD[in_stem_T].mean(0) - x_TD[~in_stem_T].mean(0)}
    found |= {"linear probe": probe.coef_[0]}
    found |= {"random direction": np.random.default_rng(seed).normal(size=x_TD.shape[1])}
    units = {name: torch.from_numpy(of / np.linalg.norm(of)).float() for name, of in found.items()}
    return {name: of.to(sae.decoder_weight.device) for name, of in units.items()}


def steer(
    model: LanguageModel, sae: SparseAutoencoders, sequence: str, feature: int, value: float
) -> pd.DataFrame:
    """What the model predicts with a feature set to a value at all nucleotides: a row per position and base.

    model : with its head for masked bases; each position is masked in turn

    Columns position (from 1), base (that stands there), predicted, own, steered (probability of the predicted
    base without and with the change). Raises ValueError for other letters than ACGU, and for a feature that
    there is not.
    """
    if strange := sorted(set(sequence) - set(NUCLEOTIDES)):
        at = sequence.index(strange[0]) + 1
        raise ValueError(f"'{strange[0]}' at position {at} cannot be predicted: write A, C, G or U")
    if not 0 <= feature < sae.config.latents:
        raise ValueError(f"there is no feature {feature}: choose 0 to {sae.config.latents - 1}")
    size, (layer,) = len(sequence), sae.config.layers
    replace = edited(sae, set_feature(sae, feature, value), np.empty(0), np.empty(0))
    texts, masked = [sequence] * size, [np.array([at]) for at in range(size)]
    logs = [masked_log_probabilities(model, texts, masked, layer, of) for of in (None, replace)]
    columns: dict = {"position": np.repeat(np.arange(size) + 1, 4), "base": np.repeat(list(sequence), 4)}
    columns |= {"predicted": list(NUCLEOTIDES) * size}
    return pd.DataFrame(columns | {name: np.exp(of).ravel() for name, of in zip(("own", "steered"), logs)})


def steer_records(
    model: LanguageModel, sae: SparseAutoencoders, records: pd.DataFrame, feature: int, value: float
) -> pd.DataFrame:
    """`steer` of every record, with its id. Raises ValueError that names the record."""
    tables = []
    for record in records.itertuples():
        try:
            tables.append(steer(model, sae, record.sequence, feature, value).assign(id=record.id))
        except ValueError as error:
            raise ValueError(f"record '{record.id}': {error}") from None
    table = pd.concat(tables, ignore_index=True)
    return table[["id", *table.columns.drop("id")]]


def example(rnas: Activations, tested: pd.DataFrame, strength: float = 2) -> tuple[int, int, str, float]:
    """Layer and number of the surest feature, an RNA to steer (the selection families' first short one with a
    long helix), and `strength` times the feature's maximum."""
    layer, (feature, *_) = chosen(tested)
    maximum = rnas.summary.set_index(["layer", "feature"]).maximum[layer, feature]
    case = draw_cases(rnas.records[rnas.records.split == "selection"], 1, 0)["natural"][0]
    return layer, int(feature), case.sequence, float(strength * maximum)


def steered_numbers(steered: pd.DataFrame) -> dict:
    """For captions: at how many `positions` another base becomes the likeliest, and what predictions tell, 2
    bits less their entropy, in the mean, before and after."""
    facts, likeliest = dict[str, float](), []
    for of in ("own", "steered"):
        share_P4 = steered[of].to_numpy(float).reshape(-1, 4)
        facts[f"{of}_bits"] = 2 + float((share_P4 * np.log2(np.maximum(share_P4, 1e-12))).sum(1).mean())
        likeliest.append(share_P4.argmax(1))
    return facts | {"changed": int((likeliest[0] != likeliest[1]).sum()), "positions": len(likeliest[0])}


def dose_numbers(doses: pd.DataFrame) -> dict:
    """For captions: what the largest dose of each source changes at the partner, in words."""
    most = doses[(doses.dose == doses.dose.max()) & (doses.place == PLACES[0])]
    signed = [
        f"{source}: {effect:+.2f}".replace("-", "−") for source, effect in zip(most.source, most.effect)
    ]
    return {"dose": float(doses.dose.max()), "at_most": ", ".join(signed)}


def numbers(effects: pd.DataFrame) -> dict:
    """Numbers of captions: how many of the `features` are needed, and bring back more, beyond their controls;
    of how many the interval lies below 0, and how many bring back less than all controls."""
    partner = effects[effects.place == PLACES[0]]
    away, over = (partner[partner.intervention == name] for name in (ABLATED, TRANSPLANTED))
    loose = effects[(effects.place != PLACES[0]) & (effects.intervention == ABLATED)]
    facts: dict = {"features": len(away), "layer": int(away.layer.iloc[0]), "rnas": int(away.rnas.iloc[0])}
    facts |= {"used": int(away.beyond.sum()), "sufficient": int(over.beyond.sum())}
    facts |= {"lowered": int((away.high < 0).sum()), "worse": int((over.effect < over.least).sum())}
    facts |= {"restored": float(over.effect.max() / max(-over.broken.iloc[0], 1e-12))}
    facts |= {"controls": int(away.controls.min()), "broken": f"{away.broken.iloc[0]:+.2f}".replace("-", "−")}
    facts |= {"lowest": f"{away.effect.min():+.2f}", "loose": f"{loose.effect.abs().max():.2f}"}
    facts |= {"least": f"{away.least.min():+.2f}", "highest": f"{over.effect.max():+.2f}"}
    return {name: of.replace("-", "−") if isinstance(of, str) else of for name, of in facts.items()}
