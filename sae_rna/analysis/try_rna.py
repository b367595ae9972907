"""Try your RNA: the model, the named features and what their names are worth, for a script in a browser.

`book/assets/try-rna.js` reads an RNA as `extraction` and `sae` do, from what `reader` gives it.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from sae_rna.analysis.atlas import addresses
from sae_rna.analysis.ground_truth import KEEPS
from sae_rna.analysis.structure_features import best, best_by_element, rna_name
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.records.checks import KNOWN_LETTERS
from sae_rna.records.splits import SETTINGS
from sae_rna.sae.activations import Activations
from sae_rna.sae.autoencoder import SparseAutoencoders
from sae_rna.sae.export import fold

MEGABYTES = 20  # of weights that a page may bring along
LONGEST = 512  # nucleotides that a script reads within seconds on a phone
TOKEN_DROPOUT = 1 - 0.15 * 0.8  # by which multimolecule multiplies embeddings where nothing is masked
_HEADERS = {"setting": "RNAs", "concept": "element", "layer": "layer", "feature": "feature",
            "base_auroc": "AUROC within bases", "null_p95": "chance", "fault": "beyond chance and confounds",
            "verdict": "falsification"}  # fmt: skip
"""Columns of tab-named-features."""


def named(scores: pd.DataFrame, names: pd.DataFrame, rnas: Activations) -> pd.DataFrame:
    """The best feature of every setting and element, `structure_features.best`, and what its name is worth.

    scores : `structure_features.score_elements`, marked by `confounds.mark`
    names : `ground_truth.verdicts`, where `verdict` is from if this very feature was tested

    `maximum` is the feature's on the selection split; `certain`: it has no fault and keeps its name
    in every setting where it is best; `shown`:
    it is above chance in some setting.
    """
    found, keys = best_by_element(scores), ["setting", "concept", "layer", "feature"]
    table = pd.DataFrame([best(scores, row.concept, row.setting) for row in found.itertuples()])
    tested = names[(names.source == rnas.name) & (names.group == "element")].set_index(keys).verdict
    tested = tested.reindex(pd.MultiIndex.from_frame(table[keys]))
    table["verdict"] = tested.fillna("not tested").to_numpy()
    passes = (table.fault == "") & (table.verdict == KEEPS)
    table["certain"] = passes.groupby([table[name] for name in keys[1:]]).transform("all")
    of_split = [rnas.of_split(row.layer, SETTINGS[row.setting][0])[0] for row in table.itertuples()]
    table["maximum"] = [values_TF[:, feature].max() for values_TF, feature in zip(of_split, table.feature)]
    above = table.base_auroc_low > table.null_p95
    table["shown"] = above.groupby([table[name] for name in keys[1:]]).transform("any")
    return table.reset_index(drop=True)


def name_table(features: pd.DataFrame) -> pd.DataFrame:
    """tab-named-features, from `named`."""
    return features.replace({"fault": {"": "yes"}})[[*_HEADERS]].rename(columns=_HEADERS)


def example(records: pd.DataFrame) -> dict[str, str]:
    """The RNA that stands on the page beforehand: of median length, and a natural tRNA if there is one."""
    fit = records[records.sequence.str.len() <= LONGEST]
    for column, value in (("type", "tRNA"), ("origin", "natural")):
        fit = fit[fit[column] == value] if column in fit and (fit[column] == value).any() else fit
    row = fit.loc[fit.sequence.str.len().sort_values(kind="stable").index[len(fit) // 2]]
    return {"name": rna_name(row), "sequence": row.sequence, "structure": row.secondary_structure}


def obstacle(model: LanguageModel, features: pd.DataFrame) -> str:
    """Why there is no page for these `features`, in words; empty if there is one."""
    if features.empty:
        return "No feature of this run does better than chance: there is nothing to show."
    kind, remedy = model.model.config.model_type, "sae-rna annotate my.fa reads RNAs with it on your machine."
    if kind != "rinalmo" or model.model.config.position_embedding_type != "rotary":
        return f"This page reads RNAs with RiNALMo alone, and this run's model is {kind}: {remedy}"
    size = 2e-6 * sum(weight.numel() for weight in _weights(model, features.layer.max()).values())
    problem = f"This run's language model ({size:,.0f} MB) is too large for a browser: {remedy}"
    return problem if size > MEGABYTES else ""


def reader(model: LanguageModel, autoencoders: Mapping, features: pd.DataFrame) -> dict:
    """All that it takes to read an RNA and show these `features`, as JSON."""
    shown: dict[tuple, dict[str, Any]] = {}
    for row, page in zip(features.itertuples(), addresses(autoencoders, features)):
        key = {"concept": row.concept, "layer": int(row.layer), "feature": int(row.feature)}
        of = shown.setdefault(tuple(key.values()), key | {"page": page, "certain": True, "worth": []})
        worth = f"{row.setting}: AUROC within bases {row.base_auroc:.3f} (chance {row.null_p95:.3f}); "
        of["worth"].append(
            f"{worth}{row.fault or 'more than chance and its confounds tell'}; falsification: {row.verdict}"
        )
        of |= {"maximum": float(row.maximum), "threshold": float(row.threshold)}
        of["certain"] &= bool(row.certain)
    used = {layer: sorted({number for _, own, number in shown if own == layer}) for _, layer, _ in shown}
    ids, config = model.tokenize([KNOWN_LETTERS])["input_ids"][0].tolist(), model.model.config
    letters, after = ids[model.first :][: len(KNOWN_LETTERS)], ids[model.first + len(KNOWN_LETTERS) :]
    facts: dict[str, Any] = {"features": [*shown.values()], "longest": min(LONGEST, model.longest)}
    facts |= {"before": ids[: model.first], "letters": dict(zip(KNOWN_LETTERS, letters)), "after": after}
    facts |= {"blocks": model.blocks, "width": model.width, "heads": config.num_attention_heads}
    facts |= {"epsilon": config.layer_norm_eps, "scale": TOKEN_DROPOUT if config.token_dropout else 1}
    facts["saes"] = {layer: _sae(autoencoders[layer], numbers) for layer, numbers in used.items()}
    return facts | {"weights": _packed(_weights(model, max(used)))}


def _weights(model: LanguageModel, deepest: int) -> dict[str, torch.Tensor]:
    """Weights of the encoder up to the layer `deepest`, by their names in multimolecule."""
    used = ["embeddings.", *(f"encoder.layer.{block}." for block in range(deepest))]
    used += ["encoder.layer_norm."] if deepest == model.blocks else []
    states = model.model.base_model.state_dict()
    return {name: weight for name, weight in states.items() if name.startswith(tuple(used))}


def _sae(single: SparseAutoencoders, numbers: list[int]) -> dict:
    """Those latents (`rows`) of an autoencoder on which the features `numbers` depend, as `fold` has them."""
    folded, kind = fold(single), single.config.kind
    k = int(single.config.members[0].sparsity) if kind.activation == "topk" else 0
    rows = list(range(single.config.latents)) if k else numbers
    encoder_FD = folded["W_enc"].T[rows].half().float()  # the bias is that of the rounded matrix
    zero_D = folded["b_dec"] if kind.centred else single.standardise.mean[0].cpu()
    parts = {
        "encoder": encoder_FD,
        "bias": single.encoder_bias[0, 0].detach().cpu()[rows] - encoder_FD @ zero_D,
    }
    parts["threshold"] = folded.get("threshold", torch.zeros(single.config.latents))[rows]
    return {"k": k, "rows": rows, "weights": _packed(parts)}


def _packed(tensors: dict[str, torch.Tensor]) -> dict[str, list]:
    """[bytes of a number, base64] by name: matrices in half, vectors in single precision, little-endian."""
    arrays = {name: of.cpu().numpy().astype("<f2" if of.ndim > 1 else "<f4") for name, of in tensors.items()}
    return {name: [of.itemsize, base64.b64encode(of.tobytes()).decode()] for name, of in arrays.items()}


def fragment(model, autoencoders, features: pd.DataFrame, records: pd.DataFrame) -> str:
    """HTML of the page's working part, which the book's script draws: of `reader`, or the `obstacle`."""
    shown = features[features.shown]
    problem = obstacle(model, shown)
    read = {} if problem else reader(model, autoencoders, shown) | {"example": example(records)}
    text = json.dumps(read | {"obstacle": problem}).replace("<", "\\u003c")  # or it could end the script
    return f"""<div id="try-rna"><noscript>This part of the page needs JavaScript.</noscript></div>
<link rel="stylesheet" href="../_static/try-rna.css">
<script type="application/json" id="try-rna-content">{text}</script>
<script src="../_static/try-rna.js"></script>"""
