"""Stacks of autoencoders: first weights, members and views, configurations, saving and loading."""

import json
from dataclasses import replace

import pytest
import torch
from stacks import DEAD, WITH_K, WITH_LAMBDA, D, F, config, stack

from sae_rna.parameters import ARCHITECTURES
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders

UNIT_NORM = ("topk", "batchtopk", "matryoshka", "jumprelu")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(11)


@pytest.mark.parametrize("architecture", UNIT_NORM)
def test_decoder_rows_are_unit_norm_at_the_start_and_the_encoder_is_their_transpose(architecture):
    sae = stack(architecture)
    torch.testing.assert_close(sae.decoder_weight.norm(dim=-1), torch.ones(2, F))
    assert torch.equal(sae.encoder_weight, sae.decoder_weight.transpose(1, 2))


@pytest.mark.parametrize("architecture", ["relu-l1", "relu-l1-mean"])
def test_the_papers_autoencoder_starts_kaiming_and_xavier_and_has_no_norm_constraint(architecture):
    sae = stack(architecture, latents=4000, width=64)
    for weight, variance in ((sae.encoder_weight, 2 / 64), (sae.decoder_weight, 2 / 4064)):
        assert weight.std().item() == pytest.approx(variance**0.5, rel=0.02)
        assert weight.abs().max().item() == pytest.approx((3 * variance) ** 0.5, rel=0.01)  # uniform
        assert weight.mean().item() == pytest.approx(0, abs=0.01 * variance**0.5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_biases_start_at_zero_and_jumprelus_threshold_at_its_bandwidth(architecture):
    sae = stack(architecture)
    assert not sae.encoder_bias.any() and not sae.decoder_bias.any()
    assert hasattr(sae, "log_threshold") == (architecture == "jumprelu")
    if architecture == "jumprelu":
        torch.testing.assert_close(sae.log_threshold.exp(), torch.full((2, 1, F), 0.001 * D**0.5))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_member_is_the_same_alone_and_in_a_stack(architecture):
    both = stack(architecture)
    alone = stack(architecture, members=both.config.members[1:])
    for name, parameter in both.named_parameters():
        assert torch.equal(parameter[1:], alone.get_parameter(name)), name
    x, dead = torch.randn(2, 9, D), DEAD
    for mine, single in zip(both(x, dead), alone(x[1:], dead[1:])):
        torch.testing.assert_close(mine[1:], single)


def test_members_of_other_seeds_and_layers_start_elsewhere():
    members = Member(1, 5), Member(1, 5, 1), Member(2, 5), Member(1, 4)
    weight = stack(members=members).decoder_weight
    assert torch.equal(weight[0], weight[3])  # the sparsity alone changes nothing
    assert not any(torch.equal(weight[one], weight[other]) for one, other in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_views_are_single_members_that_share_memory(architecture):
    sae = stack(architecture).eval()
    views = list(sae.views())
    assert [view.config.members for view in views] == [(member,) for member in sae.config.members]
    assert all(not view.training for view in views) and next(sae.train().views()).training
    for number, view in enumerate(views):
        tensors = dict(view.named_parameters()) | dict(view.named_buffers(recurse=False))
        assert set(tensors) == set(dict(sae.named_parameters())) | set(dict(sae.named_buffers(recurse=False)))
        for name, tensor in tensors.items():
            tensor.data.fill_(number + 2)
            assert (getattr(sae, name)[number] == number + 2).all(), name
            getattr(sae, name).data[number] = number + 5
            assert (tensor == number + 5).all(), name
        assert torch.equal(view.standardise.mean, sae.standardise.mean[number : number + 1])
        assert torch.equal(view.standardise.std, sae.standardise.std[number : number + 1])


def test_the_threshold_that_a_view_observes_is_the_stacks():
    sae = stack("batchtopk").train()
    list(sae.views())[1](torch.randn(1, 30, D))
    assert sae.threshold[0] == 0 and sae.threshold[1] > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_layers_autoencoder_encodes_as_the_stack_does(architecture):
    sae, x = stack(architecture), torch.randn(2, 9, D)
    torch.testing.assert_close(sae.only(4).encode(x[1:]), sae.encode(x)[1:])


def test_of_several_members_of_a_layer_the_first_is_taken_and_an_unknown_layer_is_refused():
    sae = stack(members=(Member(1, 5), Member(4, 3, 7), Member(4, 6)))
    assert sae.only(4).config.members == (Member(4, 3, 7),)
    with pytest.raises(ValueError, match="no autoencoder for layer 2.*1, 4"):
        sae.only(2)


def test_a_latents_weights_lie_side_by_side():
    sae = stack()
    assert sae.encoder_weight.transpose(1, 2).is_contiguous() and sae.decoder_weight.is_contiguous()


@pytest.mark.parametrize(
    ("architecture", "files"),
    [
        *((name, ["layer-01_seed-0_k-5.safetensors", "layer-04_seed-7_k-3.safetensors"]) for name in WITH_K),
        *(
            (name, ["layer-01_seed-0_lambda-0.01.safetensors", "layer-04_seed-7_lambda-0.2.safetensors"])
            for name in WITH_LAMBDA
        ),
    ],
)
def test_saved_and_loaded_stacks_are_equal_with_statistics_and_facts(tmp_path, architecture, files):
    sae = stack(architecture, revision="v1", training={"epochs": 2.5, "data": "some/data"})
    x = torch.randn(2, 30, D)
    sae.train()(x)  # a threshold that is not 0
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    sae.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["config.json", *files]
    loaded = SparseAutoencoders.from_pretrained(tmp_path / "new" / "folder")
    assert loaded.config == sae.config and not loaded.training
    assert (
        set(loaded.state_dict())
        == set(sae.state_dict())
        >= {"encoder_weight", "standardise.mean", "standardise.std"}
    )
    for name, value in sae.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name
    assert torch.equal(loaded.encode(x), sae.eval().encode(x))
    assert loaded.encoder_weight.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_member_saved_alone_is_the_member_of_the_stack(tmp_path, architecture):
    sae = stack(architecture)
    sae.save(tmp_path / "both")
    sae.only(4).save(tmp_path / "one")
    (file,) = (tmp_path / "one").glob("*.safetensors")
    assert file.read_bytes() == (tmp_path / "both" / file.name).read_bytes()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_truncated_or_missing_file_is_refused_with_a_sentence(tmp_path, architecture):
    sae = stack(architecture)
    sae.save(tmp_path)
    file = tmp_path / sae.config.file_name(sae.config.members[1])
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot be read.*train them again"):
        SparseAutoencoders.from_pretrained(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match="cannot be read.*train them again"):
        SparseAutoencoders.from_pretrained(tmp_path)


@pytest.mark.parametrize("changes", [{"width": 16}, {"latents": 48}, {"architecture": "batchtopk"}])
def test_a_checkpoint_of_another_shape_or_architecture_is_refused(tmp_path, changes):
    stack().save(tmp_path)
    facts = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(facts | changes))
    with pytest.raises(ValueError, match="cannot be read"):
        SparseAutoencoders.from_pretrained(tmp_path)


def test_a_folder_without_config_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no config.json"):
        SparseAutoencoders.from_pretrained(tmp_path)


def test_another_models_activations_are_refused():
    sae = stack()
    sae.check_model("abc", "some/model")
    with pytest.raises(ValueError, match=r"trained on some/model \(abc\), not on other/model \(xyz\)"):
        sae.check_model("xyz", "other/model")


@pytest.mark.parametrize(
    ("architecture", "members", "message"),
    [
        *(
            (name, (Member(1, 41),), "k = 41 active latents are impossible in a dictionary of 40")
            for name in WITH_K
        ),
        *((name, (Member(1, 2), Member(2, 2.5)), "k = 2.5 active latents are impossible") for name in WITH_K),
        *((name, (Member(1, 0),), "k = 0 active latents are impossible") for name in WITH_K),
        *((name, (Member(1, -1),), "k = -1 active latents are impossible") for name in WITH_K),
        ("topk", (Member(1, float("nan")),), "impossible"),
        ("topk", (Member(1, float("inf")),), "impossible"),
        *(
            (name, (Member(1, 0.1), Member(2, -0.1)), "penalty of weight -0.1 is impossible.*negative")
            for name in WITH_LAMBDA
        ),
        ("relu-l1", (Member(1, float("nan")),), "penalty of weight nan is impossible"),
        *(
            (name, (Member(1, 2), Member(2, 2), Member(1, 2)), "two members of a stack are the same")
            for name in ARCHITECTURES
        ),
    ],
)
def test_impossible_configurations_are_refused(architecture, members, message):
    with pytest.raises(ValueError, match=message):
        config(architecture, members=members)


def test_possible_configurations_are_not_refused_and_plain_tuples_become_members():
    assert config(members=((1, 40, 2), [3, 1])).members == (Member(1, 40, 2), Member(3, 1, 0))
    assert config("relu-l1", members=((1, 0.0),)).layers == (1,)
    assert replace(config(), members=(Member(1, 5), Member(1, 5, 1), Member(2, 5), Member(1, 6))).layers == (
        1,
        1,
        2,
        1,
    )


def test_members_are_described_by_what_sets_them_apart():
    assert config().describe(Member(4, 3, 7)) == "topk autoencoder of layer 4 (seed 7, k 3)"
    assert (
        config("jumprelu").describe(Member(1, 0.2)) == "jumprelu autoencoder of layer 1 (seed 0, lambda 0.2)"
    )


@pytest.mark.parametrize(
    ("architecture", "members", "message"),
    [
        ("relu-l1", (Member(1, float("inf")),), "must be finite"),
        ("relu-l1", (Member(1, 0.003), Member(1, 0.0030000000000000001)), "are the same"),
    ],
)
def test_stacks_that_could_not_be_saved_or_trained_are_refused(architecture, members, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderConfig(architecture, members, 8, 16)


def test_members_of_nearly_the_same_sparsity_have_files_of_their_own(tmp_path):
    config = AutoencoderConfig("relu-l1", (Member(1, 0.003), Member(1, 0.0030000001, 1)), 8, 16)
    assert len({config.file_name(member) for member in config.members}) == 2


@pytest.mark.parametrize("change", [lambda values: values.pop("members"), lambda values: values.update(k=3)])
def test_a_configuration_of_another_version_is_refused_with_a_sentence(tmp_path, change):
    stack("topk").save(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    change(values)
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="cannot be read.*train them again"):
        SparseAutoencoders.from_pretrained(tmp_path)


def test_weights_of_another_architecture_are_refused(tmp_path):
    stack("jumprelu").save(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    for member in values["members"]:
        old = tmp_path / AutoencoderConfig("jumprelu", (Member(**member),), 12, 40).file_name(
            Member(**member)
        )
        member["sparsity"] = 5
        old.rename(
            tmp_path / AutoencoderConfig("topk", (Member(**member),), 12, 40).file_name(Member(**member))
        )
    (tmp_path / "config.json").write_text(json.dumps(values | {"architecture": "topk"}))
    with pytest.raises(ValueError, match="cannot be read"):
        SparseAutoencoders.from_pretrained(tmp_path)
