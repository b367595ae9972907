"""Exported autoencoders give what ours give, read by SAELens or its formulas."""

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from sae_rna.__main__ import main
from sae_rna.extraction.stream import Standardiser
from sae_rna.parameters import ARCHITECTURES
from sae_rna.sae.architectures import KINDS
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.sae.export import to_saelens

FACTS = {"types": "some/records", "sequences": 9, "tokens": 1234}
RELU = [name for name, kind in KINDS.items() if kind.activation == "relu"]
THRESHOLDED = ("batchtopk", "matryoshka", "jumprelu")


def stack(architecture: str) -> SparseAutoencoders:
    """Two members over unlike layers, in which nothing is zero, one or the transpose of something else."""
    counted = KINDS[architecture].counted
    members = Member(1, 5 if counted else 0.01, seed=0), Member(4, 7 if counted else 0.02, seed=3)
    config = AutoencoderConfig(
        architecture, members, 12, 40, model="some/model", revision="main", fingerprint="abc", training=FACTS
    )
    torch.manual_seed(0)
    sae = SparseAutoencoders(config, Standardiser(5 * torch.randn(2, 12), 3 * torch.rand(2, 12) + 0.2)).eval()
    with torch.no_grad():
        for parameter in (sae.encoder_bias, sae.decoder_bias):
            parameter.normal_()
        sae.encoder_weight += 0.3 * torch.randn(2, 12, 40)
        if architecture == "jumprelu":
            sae.log_threshold.uniform_(-1, 1)
        if hasattr(sae, "threshold"):
            sae.threshold.copy_(torch.tensor([0.6, 1.2]).view(2, 1, 1))
    return sae


def hidden_states(sae: SparseAutoencoders, tokens: int = 60) -> torch.Tensor:
    """Hidden states [M, B, D] with about the statistics that the stack standardises with."""
    generator = torch.Generator().manual_seed(1)
    return sae.standardise.mean[:, None] + sae.standardise.std[:, None] * torch.randn(
        2, tokens, 12, generator=generator
    )


@torch.no_grad()
def ours(sae: SparseAutoencoders, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Feature activations and reconstructions, the latter in the units of the hidden states."""
    mean, std = sae.standardise.mean[:, None], sae.standardise.std[:, None]
    features = sae.encode((h - mean) / std)
    return features, sae.decode(features) * std + mean


# ---------------------------------------------------------------- readers: a subfolder -> (encode, decode)


def saelens(folder: Path):
    peer = pytest.importorskip("sae_lens", reason="install the extra 'peers' to compare with SAELens")
    sae = peer.SAE.load_from_disk(folder)
    return sae.encode, sae.decode


def saelens_formulas(folder: Path):
    """`encode` and `decode` of SAELens' StandardSAE, TopKSAE and JumpReLUSAE, from the files alone."""
    config = json.loads((folder / "cfg.json").read_text())
    tensors = {name: value.double() for name, value in load_file(folder / "sae_weights.safetensors").items()}

    def encode(h):
        pre = (h - config["apply_b_dec_to_input"] * tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]
        if config["architecture"] == "topk":
            return largest(pre, config["k"])
        return (
            pre.relu() * (pre > tensors["threshold"]) if config["architecture"] == "jumprelu" else pre.relu()
        )

    return encode, lambda features: features @ tensors["W_dec"] + tensors["b_dec"]


def largest(pre: torch.Tensor, k: int) -> torch.Tensor:
    return pre.relu() * (pre >= pre.sort(descending=True).values[..., k - 1 : k])


class Reader(NamedTuple):
    load: Callable
    dtype: torch.dtype
    tolerance: float
    """Relative and absolute. The formulas, in double precision, differ by the rounding of the weights."""


READERS = {
    "SAELens": Reader(saelens, torch.float32, 1e-5),
    "its formulas": Reader(saelens_formulas, torch.float64, 3e-6),
}


@pytest.fixture(params=READERS)
def reader(request) -> Reader:
    return READERS[request.param]


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_and_reconstructions_of_raw_hidden_states_are_ours(architecture, reader, tmp_path):
    sae = stack(architecture)
    h = hidden_states(sae)
    features, reconstructions = ours(copy.deepcopy(sae).to(reader.dtype), h.to(reader.dtype))
    assert 0.05 < (features > 0).float().mean() < 0.95
    if architecture in THRESHOLDED:  # the threshold matters, not only the sign
        with torch.no_grad():
            x = (h - sae.standardise.mean[:, None]) / sae.standardise.std[:, None]
            assert ((sae.preactivations(x) > 0) & (features == 0)).any(1).sum() > 40
    for number, folder in enumerate(to_saelens(sae, tmp_path)):
        encode, decode = reader.load(folder)
        with torch.no_grad():
            theirs = encode(h[number].to(reader.dtype))
            torch.testing.assert_close(theirs, features[number], rtol=reader.tolerance, atol=reader.tolerance)
            torch.testing.assert_close(
                decode(theirs), reconstructions[number], rtol=reader.tolerance, atol=reader.tolerance
            )


@pytest.mark.parametrize("architecture", THRESHOLDED)
def test_a_preactivation_that_equals_its_threshold_is_kept_as_here(architecture, reader, tmp_path):
    """BatchTopK keeps it, JumpReLU does not; the numbers next to it are kept if greater."""
    sae = stack(architecture)
    sae.standardise = Standardiser(torch.zeros(2, 12), torch.ones(2, 12))
    half = torch.tensor(0.5)
    with torch.no_grad():
        for parameter in (sae.encoder_weight, sae.encoder_bias, sae.decoder_bias):
            parameter.zero_()
        sae.encoder_weight[:, 0, :] = 1  # every preactivation is the first dimension
        sae.log_threshold.fill_(half.log()) if architecture == "jumprelu" else sae.threshold.fill_(half)
    threshold = sae.log_threshold.exp()[0, 0, 0] if architecture == "jumprelu" else half
    values = torch.stack(
        [
            torch.nextafter(threshold, torch.tensor(0.0)),
            threshold,
            torch.nextafter(threshold, torch.tensor(1.0)),
        ]
    ).detach()
    h = torch.zeros(2, 3, 12)
    h[..., 0] = values
    kept = [False, architecture != "jumprelu", True]
    assert (ours(sae, h)[0] > 0).all(-1).tolist() == [kept, kept]
    for folder in to_saelens(sae, tmp_path):
        encode, _ = reader.load(folder)
        active = encode(h[0].to(reader.dtype)) > 0
        assert active.all(-1).tolist() == active.any(-1).tolist() == kept


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("architecture", ["topk", "relu-l1"])
def test_one_subfolder_a_member_holds_the_two_files_and_nothing_else(architecture, tmp_path):
    sparsity = ("k-5", "k-7") if architecture == "topk" else ("lambda-0.01", "lambda-0.02")
    names = [f"layer-01_seed-0_{sparsity[0]}", f"layer-04_seed-3_{sparsity[1]}"]
    for _ in range(2):  # a second time over the first
        folders = to_saelens(stack(architecture), tmp_path / "new" / "folder")
    assert folders == [tmp_path / "new" / "folder" / name for name in names]
    files = ["cfg.json", "sae_weights.safetensors"]
    written = sorted(
        path.relative_to(tmp_path / "new" / "folder").as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file()
    )
    assert written == [f"{name}/{file}" for name in names for file in files]


def test_the_configuration_says_where_the_autoencoder_comes_from(tmp_path):
    folder = to_saelens(stack("matryoshka"), tmp_path)[1]
    facts = json.loads((folder / "cfg.json").read_text())["metadata"]
    assert (facts["model_name"], facts["model_revision"], facts["model_fingerprint"]) == (
        "some/model",
        "main",
        "abc",
    )
    assert (facts["layer"], facts["hook_name"], facts["seed"], facts["sparsity"]) == (
        4,
        "hidden_states.4",
        3,
        7,
    )
    assert (facts["sae_rna_architecture"], facts["nested_dictionaries"]) == ("matryoshka", [2, 5, 10, 20, 40])
    assert facts["training"] == FACTS
    assert facts["standardisation"].startswith("folded into the weights")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saelens_reads_the_architecture_and_the_facts_without_a_warning(architecture, tmp_path):
    peer = pytest.importorskip("sae_lens", reason="install the extra 'peers' to compare with SAELens")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = peer.SAE.load_from_disk(to_saelens(stack(architecture), tmp_path)[1]).cfg
    expected = {"topk": "topk", **dict.fromkeys(RELU, "standard")}.get(architecture, "jumprelu")
    assert (config.architecture(), config.d_in, config.d_sae) == (expected, 12, 40)
    assert (config.metadata.model_name, config.metadata.hook_name, config.metadata.training) == (
        "some/model",
        "hidden_states.4",
        FACTS,
    )
    assert (
        config.metadata.sae_lens_training_version is None
    )  # else SAELens names its own version as the trainer's


@pytest.mark.parametrize("architecture", ["batchtopk", "matryoshka"])
def test_a_member_without_a_threshold_is_refused_and_nothing_is_written(architecture, tmp_path):
    sae = stack(architecture)
    sae.threshold[1] = 0
    with pytest.raises(
        ValueError, match=f"{architecture} autoencoder of layer 4 .*has no threshold yet: train it"
    ):
        to_saelens(sae, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_export_leaves_the_old_file_or_none(tmp_path, monkeypatch):
    def broken(_, file):
        Path(file).write_bytes(b"half of it")
        raise OSError("disk full")

    old = to_saelens(stack("topk"), tmp_path / "old")[0] / "sae_weights.safetensors"
    before = old.read_bytes()
    monkeypatch.setattr("sae_rna.sae.export.save_file", broken)
    for folder in ("old", "new"):
        with pytest.raises(OSError, match="disk full"):
            to_saelens(stack("topk"), tmp_path / folder)
    assert old.read_bytes() == before
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]


def test_the_command_line_writes_one_folder_for_each_member_and_refuses_a_folder_without_autoencoders(
    tmp_path, capsys
):
    stack("topk").save(tmp_path / "stack")
    assert main(["export", str(tmp_path / "stack"), "--output", str(tmp_path / "out")]) == 0
    assert [Path(line).parent for line in capsys.readouterr().out.split()] == [tmp_path / "out"] * 2
    direct = to_saelens(stack("topk"), tmp_path / "direct")
    for folder in direct:
        written = load_file(tmp_path / "out" / folder.name / "sae_weights.safetensors")
        assert all(
            torch.equal(value, written[name])
            for name, value in load_file(folder / "sae_weights.safetensors").items()
        )
    (tmp_path / "empty").mkdir()
    assert main(["export", str(tmp_path / "empty"), "--output", str(tmp_path / "none")]) == 1
    assert "no config.json" in capsys.readouterr().err and not (tmp_path / "none").exists()
