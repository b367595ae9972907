"""Trained autoencoders in the format of SAELens.

An exported autoencoder takes and gives hidden states h as the language model has them. The standardisation
x = (h - mean) / std is folded into the weights:

    W' = W / std        W_d' = W_d std        c' = c std + mean        b' = b - (mean / std) W

where b stays as it is if c, now c', is subtracted before encoding (`Kind.centred`). Feature activations and
thresholds are the same numbers as here, except for rounding. Rows of W_d' no longer have unit norm, so
nothing may rescale activations by the decoder's norms before it chooses the K largest.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

from sae_rna.files import write_json, writing
from sae_rna.sae.autoencoder import SparseAutoencoders

SAELENS = {"relu": "standard", "topk": "topk", "batchtopk": "jumprelu", "jumprelu": "jumprelu"}
"""SAELens' architecture for an activation function; it, too, saves BatchTopK and Matryoshka as JumpReLU."""


def to_saelens(stack: SparseAutoencoders, folder: Path) -> list[Path]:
    """Write ``cfg.json`` and ``sae_weights.safetensors`` for ``SAE.load_from_disk(subfolder)`` of SAELens 6.

    Returns the subfolders, one a member and named like its file, for example ``layer-01_seed-0_k-16``. Raises
    ValueError, before anything is written, for a BatchTopK or Matryoshka member without a threshold. Format:
    ``saes/sae.py``, ``loading/pretrained_sae_loaders.py`` of https://github.com/decoderesearch/SAELens
    """
    config, subfolders = stack.config, list[Path]()
    kind = config.kind
    for number, member in enumerate(config.members if kind.activation == "batchtopk" else ()):
        if not stack.threshold[number] > 0:
            raise ValueError(f"the {config.describe(member)} has no threshold yet: train it to export it")
    content: dict = {"architecture": SAELENS[kind.activation], "d_in": config.width}
    content |= {"d_sae": config.latents, "dtype": "float32", "device": "cpu", "reshape_activations": "none"}
    content |= {"apply_b_dec_to_input": kind.centred, "normalize_activations": "none"}
    # The format's version: a file without is taken for one of version 5, its `metadata` dropped.
    facts: dict = {"sae_lens_version": "6.0.0", "sae_lens_training_version": None}
    facts |= {"model_name": config.model, "model_revision": config.revision, "training": config.training}
    facts |= {"model_fingerprint": config.fingerprint, "sae_rna_architecture": config.architecture}
    facts |= {"nested_dictionaries": list(config.prefixes)}
    facts["standardisation"] = "folded into the weights: takes and gives hidden states as they are"
    for single, member in zip(stack.views(), config.members, strict=True):
        if kind.activation == "topk":
            content |= {"k": int(member.sparsity), "rescale_acts_by_decoder_norm": False}
        # As transformers numbers them: 0 is the embedding.
        own = member._asdict() | {"hook_name": f"hidden_states.{member.layer}"}
        subfolders.append(Path(folder) / config.file_name(member).removesuffix(".safetensors"))
        with writing(subfolders[-1] / "sae_weights.safetensors") as temporary:
            save_file(fold(single), temporary)
        write_json(subfolders[-1] / "cfg.json", content | {"metadata": facts | own})
    return subfolders


@torch.no_grad()
def fold(single: SparseAutoencoders) -> dict[str, torch.Tensor]:
    """Float32 weights for hidden states, under SAELens' names, computed in double precision.

    W_enc [D, F], b_enc [F], W_dec [F, D], b_dec [D] and threshold [F]: latents are active if greater than it.
    """
    kind = single.config.kind
    weights = {name: value[0].cpu().double() for name, value in single.state_dict().items()}
    mean, std = weights["standardise.mean"], weights["standardise.std"]
    encoder, bias = weights["encoder_weight"] / std[:, None], weights["encoder_bias"][0]
    exact = {
        "W_enc": encoder,
        "b_enc": bias if kind.centred else bias - mean @ encoder,
        "W_dec": weights["decoder_weight"] * std,
        "b_dec": weights["decoder_bias"][0] * std + mean,
    }
    folded = {name: value.float().contiguous() for name, value in exact.items()}
    if kind.activation == "jumprelu":
        folded["threshold"] = single.log_threshold[0, 0].exp().cpu()
    if kind.activation == "batchtopk":  # kept here if >= the threshold: if > the next smaller number
        below = torch.nextafter(single.threshold[0, 0].cpu(), torch.zeros(1))
        folded["threshold"] = below.repeat(single.config.latents)
    return folded
