"""A misspelt name or an impossible value stops with a sentence; profiles hold what they say."""

import pytest

from sae_rna.__main__ import main
from sae_rna.parameters import ARCHITECTURES, Parameters, read_profile


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ({"k": 0}, "greater than 0"),
        ({"k": 1.5}, "integer"),
        ({"layers": "first"}, "'all' or .* list"),
        ({"layers": []}, "at least 1 item"),
        ({"layers": [1, 0]}, "greater than 0"),
        ({"architecture": "gated"}, "'topk', 'relu-l1'"),
        ({"compared": ["relu-l1", "gated"]}, "'paper' or 'all' or .*'topk'"),
        ({"compared": "everything"}, "'paper' or 'all' or .*'topk'"),
        ({"precision": "float16"}, "'auto', 'float32' or 'bfloat16'"),
        ({"l0": -0.1}, "greater than or equal to 0"),
        ({"epochs": "two"}, "number"),
        ({"l1": -1.0}, "greater than or equal to 0"),
        ({"seed": True}, "integer"),
        ({"fold": "yes"}, "boolean"),
    ],
)
def test_impossible_values_are_refused_with_the_name_the_value_and_what_is_possible(values, remedy):
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=remedy) as refused:
        Parameters(**values)
    assert f"'{name}'" in str(refused.value) and repr(value) in str(refused.value)


def test_a_misspelt_name_is_refused_with_the_one_that_was_meant():
    with pytest.raises(ValueError, match="no parameter 'layr': did you mean 'layers'"):
        Parameters.check_names(["layr"])


def test_whole_numbers_and_scientific_notation_are_real_numbers():
    assert Parameters(epochs=2).epochs == 2.0 and isinstance(Parameters(epochs=2).epochs, float)
    assert Parameters(l1="1e-3").l1 == 0.001  # as YAML reads it


@pytest.mark.parametrize("profile", ["default", "smoke", "paper"])
def test_shipped_profiles_are_valid(profile):
    assert Parameters.from_profile(profile).run == f"runs/{profile}"


def test_the_paper_profile_asks_for_giga_and_the_hubs_data():
    parameters = Parameters.from_profile("paper")
    assert parameters.model == "multimolecule/rinalmo-giga"
    assert (
        parameters.structures == "multimolecule/bprna-90" and parameters.types == "multimolecule/rnacentral"
    )
    assert parameters.expansion * 1280 > 7783  # the paper's hairpin feature has this number


def test_an_unknown_profile_and_a_misspelt_name_in_one_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no profile 'papr'.*default"):
        read_profile("papr")
    (tmp_path / "mine.yml").write_text("modle: x\n")
    with pytest.raises(ValueError, match="did you mean 'model'"):
        read_profile(str(tmp_path / "mine.yml"))


def test_the_command_line_ends_in_one_sentence(capsys, tmp_path):
    assert (
        main(
            ["notebook", "notebooks/01-data.ipynb", "--output", str(tmp_path / "x.ipynb"), "-p", "layr", "5"]
        )
        == 1
    )
    assert capsys.readouterr().err == "sae-rna: there is no parameter 'layr': did you mean 'layers'?\n"
    assert not list(tmp_path.iterdir())


def test_the_architecture_shown_comes_first_and_each_has_its_sparsity():
    assert {name: Parameters().sparsity(name) for name in Parameters().architectures} == {
        "topk": 16,
        "relu-l1": 3e-3,
        "relu-l1-mean": 3e-3,
    }
    assert Parameters(architecture="relu-l1").architectures == ["relu-l1", "relu-l1-mean"]
    everything = Parameters(architecture="jumprelu", compared="all", k=8, l1=0.1, l0=0.2)
    assert everything.architectures[0] == "jumprelu" and set(everything.architectures) == set(ARCHITECTURES)
    assert everything.sparsity("jumprelu") == 0.2 and everything.sparsity("matryoshka") == 8
