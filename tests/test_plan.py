"""The plan's numbers against ones counted by hand, its counts against the study's own, and its warnings."""

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig

from sae_rna import plan as planning
from sae_rna.__main__ import main
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.memory import BATCH_TOKENS, FORWARD_FLOATS, OVERHEAD_GB
from sae_rna.parameters import FROZEN, ROOT, Parameters
from sae_rna.plan import Data, Size, Speed, model_config, model_size, plan, report, study_data, warnings
from sae_rna.study import Study

SIZE = Size(blocks=4, width=10, block_parameters=1000, parameters=4500, longest=100)
DATA = Data(
    {"train": 30, "types": 10, "structures": 5}, {"train": 1000, "types": 200, "structures": 100}, True
)
SPEED = Speed(1e6, {("topk", 8): 2e6, ("topk", 4): 1e6}, "CPU", True)
SPEED_OF_TWO = SPEED._replace(training=SPEED.training | {("relu-l1", 8): 1e6})


def small(**other):
    """Layers 1 and 2 together and 3 alone; TopK in two sizes and on the random model."""
    values = {
        "layers": [1, 2, 3],
        "layer_group": 2,
        "architecture": "topk",
        "compared": "topk",
        "expansion": 8,
        "narrow": 4,
        "replicates": 0,
        "k": 2,
        "epochs": 2.0,
        "shuffles": 4,
    }
    return Parameters(**values | other)


def test_hours_disk_and_memory_are_those_counted_by_hand():
    table = plan(small(), SIZE, DATA, SPEED).set_index("step")
    seconds = table.hours * 3600
    # one pass for all kinds of autoencoders, as all fits into the buffer, to blocks 2 and 3: 2 x 1000
    # parameters x 5 blocks x 1000 tokens
    assert (
        seconds["train on language-model: its states"]
        == seconds["train on random-model: its states"]
        == pytest.approx(10)
    )
    assert seconds["- topk-x8-seed0"] == pytest.approx(12 * 10 * 80 * 3 * 2 * 1000 / 2e6)
    assert seconds["- topk-x4-seed0"] == pytest.approx(12 * 10 * 40 * 3 * 2 * 1000 / 1e6)
    assert seconds["encode types with language-model"] == pytest.approx(
        (2 * 1000 * 5 + 4 * 10 * 80 * 3) * 200 / 1e6
    )
    assert seconds["score structures"] == pytest.approx(2 * 2 * 100 * 3 * 5 / planning.SCORED_PER_SECOND)
    assert table.index.tolist() == [
        "train on language-model: its states", "- topk-x8-seed0", "- topk-x4-seed0",
        *(f"- topk-x8-seed0-frozen-{part}" for part in FROZEN),
        "train on random-model: its states", "- topk-x8-seed0-random-model",
        "encode types with language-model", "encode structures with language-model",
        "encode types with random-model", "encode structures with random-model", "score structures", "score types",
    ]  # fmt: skip
    assert table.jobs.tolist() == 12 * [2] + 2 * [1]
    assert table.disk_gb["- topk-x4-seed0"] * 1e9 == pytest.approx(3 * 2 * 4 * 10 * 40)
    assert table.disk_gb["encode structures with random-model"] * 1e9 == pytest.approx(3 * 8 * 2 * 100)
    model, buffer, states = (
        4 * (4 * 1000 + 500),
        4 * 1000 * 2 * 10,
        4 * BATCH_TOKENS * (2 + FORWARD_FLOATS) * 10,
    )
    training = (
        2 * 4 * (2 * 4 * 10 * (4 * 80 + 40))
    )  # two layers' weights, moments, gradients; of both sizes, and frozen
    memory = (table.memory_gb - OVERHEAD_GB) * 1e9
    assert memory["- topk-x8-seed0"] == pytest.approx(model + buffer + states + training)
    encoding = 2 * (4 * 2 * 10 * 80 + 8 * 2 * 200)  # two layers' weights and active latents: value and column
    assert memory["encode types with language-model"] == pytest.approx(model + states + encoding)


def test_epochs_cost_passes_of_the_language_model_only_where_the_buffer_does_not_hold_all():
    def passes(tokens):
        return (
            plan(small(buffer_tokens=tokens), SIZE, DATA, SPEED)
            .set_index("step")
            .hours["train on language-model: its states"]
        )

    assert passes(999) == 2 * passes(1000)


def test_a_further_architecture_costs_its_training_and_no_pass_of_the_language_model():
    few, more = (
        plan(small(compared=compared), SIZE, DATA, SPEED_OF_TWO).set_index("step")
        for compared in ("topk", "relu-l1")
    )
    assert sorted(set(more.index) - set(few.index)) == ["- relu-l1-x8-seed0"]
    states = "train on language-model: its states"
    assert more.hours[states] == few.hours[states] and more.memory_gb[states] > few.memory_gb[states]


@given(
    st.dictionaries(st.sampled_from(["train", "types", "structures"]), st.integers(1, 10**9), min_size=3),
    st.floats(1, 10),
)
def test_more_tokens_never_cost_less(tokens, factor):
    more = {use: int(count * factor) for use, count in tokens.items()}
    tables = [plan(small(), SIZE, DATA._replace(tokens=each), SPEED) for each in (tokens, more)]
    for column in ("hours", "disk_gb", "memory_gb"):
        assert (tables[1][column] >= tables[0][column]).all()


def test_the_parameters_of_the_shipped_model_are_counted_right():
    size = model_size(model_config(Parameters()))
    model = LanguageModel.load(str(ROOT / "data" / "rinalmo-nano"), device="cpu")
    assert size.parameters == model.parameter_count
    assert (size.blocks, size.width, size.longest) == (model.blocks, model.width, model.longest)


@pytest.mark.parametrize("name, millions", [("giga", 650.88), ("mega", 148.04), ("micro", 33.48)])
def test_the_published_models_have_their_published_sizes_without_a_network(name, millions, monkeypatch):
    monkeypatch.setattr(AutoConfig, "from_pretrained", _unreachable)
    size = model_size(model_config(Parameters(model=f"multimolecule/rinalmo-{name}")))
    assert size.parameters == pytest.approx(millions * 1e6, rel=0.01)  # theirs count the head and the pooler
    assert size.longest == 1022


def test_a_model_of_unknown_size_is_named_in_one_sentence(monkeypatch):
    monkeypatch.setattr(AutoConfig, "from_pretrained", _unreachable)
    with pytest.raises(ValueError, match="^the size of someone/model is unknown here: .*config.json$"):
        model_config(Parameters(model="someone/model"))


def _unreachable(*_, **__):
    raise OSError("no connection")


def test_counted_data_are_those_the_study_reads(tmp_path):
    records = pd.read_parquet(ROOT / "data" / "records.parquet").sample(1500, random_state=0)
    file = str(tmp_path / "records.parquet")
    records.to_parquet(file)
    p = Parameters(types=file, structures=file, run=str(tmp_path), per_type=20, per_split=60, longest=120)
    data, study = study_data(p, 120), Study(p)
    expected = {"train": study.training, "types": study.types, "structures": study.structures}
    assert data == Data(
        {use: len(table) for use, table in expected.items()},
        {use: table.sequence.str.len().sum() for use, table in expected.items()},
        True,
    )


def test_data_on_the_hub_have_upper_bounds_until_the_run_has_drawn_its_sample(tmp_path):
    p = Parameters(
        types="multimolecule/rnacentral",
        structures="multimolecule/bprna-90",
        per_type=7,
        per_split=9,
        run=str(tmp_path),
    )
    data = study_data(p, 50)
    assert not data.exact and data.sequences == {
        "train": planning.HUB_TYPES * 7,
        "types": 18,
        "structures": 18,
    }
    assert data.tokens == {use: 50 * count for use, count in data.sequences.items()}
    assert (
        plan(p, SIZE._replace(blocks=6), data, FAKE)
        .step.head(2)
        .str.startswith("sample multimolecule/")
        .all()
    )
    for name in ("types", "structures"):
        (tmp_path / f"sample-{name}-0123").mkdir()
        pd.read_parquet(ROOT / "data" / "records.parquet").sample(300, random_state=1).to_parquet(
            tmp_path / f"sample-{name}-0123" / "records.parquet"
        )
    drawn = study_data(p, 50)
    assert drawn.exact and 0 < drawn.tokens["train"] < data.tokens["train"]


FAKE = Speed(
    1e10,
    dict.fromkeys([("relu-l1-matched", 2), ("relu-l1-matched", 1), ("relu-l1", 2), ("batchtopk", 2)], 1e10),
    "CPU",
    True,
)


def test_each_warning_names_a_number_and_a_remedy_and_comes_only_when_due():
    table = pd.DataFrame(
        {"step": ["one", "two"], "memory_gb": [2.0, 8.0], "disk_gb": [1.0, 3.0], "hours": [40.0, 7.0]}
    )
    assert warnings(small(), table, memory_gb=8, disk_gb=4) == []
    memory, disk, hours = warnings(small(), table.assign(hours=[40.0, 9.0]), memory_gb=7.9, disk_gb=3.9)
    assert "'two' needs 8.0 GB" in memory and "layer_group (2)" in memory
    assert "4.0 GB go to disk and 3.9 are free" in disk and "per_split" in disk
    assert "49 hours are more than 48" in hours and "per_type" in hours


def test_a_layer_that_the_model_does_not_have_is_named():
    with pytest.raises(ValueError, match="layer 5 is asked for, but data/rinalmo-nano has blocks 1 to 4"):
        plan(small(layers=[1, 5]), SIZE, DATA, SPEED)


def test_hours_of_a_gpu_that_is_not_there_are_called_assumed(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    p = Parameters(
        model="multimolecule/rinalmo-giga",
        types="a/b",
        structures="a/c",
        device="cuda",
        longest=1022,
        run=str(tmp_path),
    )
    text = report(p)
    assert "assumed, as there is no GPU here" in text and "GPU-hours" in text and "upper bounds" in text
    assert "33 blocks of width 1280" in text


def test_the_command_prints_the_plan_of_a_profile(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(planning, "calibrate", lambda *_: FAKE)
    profile = tmp_path / "mine.yml"
    profile.write_text(f"run: {tmp_path}\nper_type: 3\nper_split: 40\nlonger: 1\n")
    assert main(["plan", "--profile", str(profile)]) == 1
    assert "there is no parameter 'longer'" in capsys.readouterr().err
    profile.write_text(f"run: {tmp_path}\nper_type: 3\nper_split: 40\n")
    assert main(["plan", "--profile", str(profile)]) == 0
    out = capsys.readouterr().out
    table = plan(
        Parameters.from_profile(str(profile)),
        model_size(model_config(Parameters())),
        study_data(Parameters(per_type=3, per_split=40), 256),
        FAKE,
    )
    assert "sequences and tokens are counted" in out and "6 blocks of width 128" in out
    assert f"{table.hours.sum():,.2f} CPU-hours" in out and all(step in out for step in table.step)
