"""The paper's own sources, a model and two data sets of the Hugging Face hub, and the hub's faults.

They come in through a stand-in of the hub. What asks it runs in one process of its own, since the hub's
address and cache are fixed when its libraries are imported. No other address is ever asked.
"""

import json
import multiprocessing
import os
import shutil
import socket
import time
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from pathlib import Path

import huggingface_hub
import pandas as pd
import pytest
from hub import Fault, Hub

from sae_rna.analysis import language_model, layers, structure_features, type_features
from sae_rna.cache import file_hash
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.parameters import ROOT, Parameters
from sae_rna.records.hub import sample_hub, sample_stream
from sae_rna.study import Study

MODEL, STRUCTURES, TYPES = "multimolecule/rinalmo-giga", "multimolecule/bprna-90", "multimolecule/rnacentral"
WEIGHTS, SHARD = "model.safetensors", "train-00001-of-00002.parquet"
SIZES = {"per_type": 12, "per_split": 24, "epochs": 1, "expansion": 4, "buffer_tokens": 4000, "batch": 256}
CHOICE = {"by": "type", "per_train": 5, "per_split": 8, "longest": 100, "seed": 0}


# ---- what the stand-in serves


def parquet(frame: pd.DataFrame) -> bytes:
    buffer = BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def records() -> pd.DataFrame:
    """400 RNAs, 80 of each of five types, of known structure."""
    frame = pd.read_parquet(ROOT / "data" / "records.parquet")
    frame = frame[frame.sequence.str.len() <= 90]
    frame = frame[frame.type.isin(frame.type.value_counts().index[:5])]
    return frame.groupby("type").sample(80, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="module")
def giga(tmp_path_factory) -> Path:
    """Folder of a RiNALMo as deep as giga, 33 blocks, and very narrow."""
    import torch
    from multimolecule import RiNALMoConfig, RiNALMoForMaskedLM, RnaTokenizer

    folder = tmp_path_factory.mktemp("giga")
    torch.manual_seed(0)
    narrow = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
    config = RiNALMoConfig(num_hidden_layers=33, max_position_embeddings=1024, **narrow)
    RiNALMoForMaskedLM(config).save_pretrained(folder)
    RnaTokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def repositories(records, giga) -> dict[str, dict[str, bytes]]:
    columns = ["id", "sequence", "secondary_structure", "structural_annotation", "functional_annotation"]
    structures = records.assign(
        structural_annotation=records.element,
        functional_annotation=records.sequence.str.replace(".", "N", regex=True),
    )
    types = records.assign(
        urs=[f"URS{number:010X}_9606" for number in records.index], description=records.type + " of nowhere"
    )
    bad = pd.DataFrame(
        {"urs": ["gap", "letter", "twin"], "sequence": ["ACG-ACGU", "ACGZ", records.sequence[0]]}
    )
    types = pd.concat([types, bad.assign(type=types.type[0], description="")])[
        ["urs", "sequence", "type", "description"]
    ]
    return {
        f"models/{MODEL}": {file.name: file.read_bytes() for file in giga.iterdir()},
        f"datasets/{STRUCTURES}": {
            "README.md": b"---\nlicense: agpl-3.0\n---\n",
            "data/train-00000-of-00001.parquet": parquet(structures[columns]),
        },
        f"datasets/{TYPES}": {
            "data/train-00000-of-00002.parquet": parquet(types[:200]),
            f"data/{SHARD}": parquet(types[200:]),
        },
    }


# ---- who asks it


@pytest.fixture(scope="module")
def serving(repositories, tmp_path_factory):
    """The stand-in, the cache of those who ask it, and a process with an empty memory of the real hub."""
    hub, home = Hub(repositories), tmp_path_factory.mktemp("cache") / "huggingface"
    hub.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("HF_", "TRANSFORMERS_")) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.port}")
        patch.setenv("HF_HOME", str(home))
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        patch.setenv("HF_UPDATE_DOWNLOAD_COUNTS", "0")
        patch.setenv("PYTHONWARNINGS", "ignore")
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn, initializer=stay_at_home) as process:
            yield hub, home, process
    hub.stop()


@pytest.fixture
def hub(serving) -> Hub:
    """The stand-in without faults, and nothing of it in the cache."""
    serving[0].reset()
    shutil.rmtree(serving[1], ignore_errors=True)
    return serving[0]


@pytest.fixture
def ask(serving):
    """Call a function of this module in the process that knows the stand-in only."""

    def ask(function, *arguments):
        try:
            return serving[2].submit(function, *arguments).result()
        finally:
            assert serving[2].submit(asked_elsewhere).result() == []

    return ask


_elsewhere = []


def stay_at_home() -> None:
    """Refuse and note every connection that leaves this machine, and wait for retries but a moment."""
    connect, look_up, sleep = socket.socket.connect, socket.getaddrinfo, time.sleep

    def at_home(host):
        if host not in ("127.0.0.1", "localhost", "::1"):
            _elsewhere.append(host)
            raise OSError(f"a test asks {host}")

    def guarded_connect(self, address):
        if isinstance(address, tuple):
            at_home(address[0])
        return connect(self, address)

    def guarded_look_up(host, *arguments, **more):
        at_home(host)
        return look_up(host, *arguments, **more)

    socket.socket.connect, socket.getaddrinfo = guarded_connect, guarded_look_up
    time.sleep = lambda seconds: sleep(min(seconds, 0.001))
    # bytes that a cut file keeps; 10 MB for files of real size
    huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = 20_000


def asked_elsewhere() -> list[str]:
    return _elsewhere


def load_model(revision: str | None = None) -> tuple[str, str]:
    model = LanguageModel.load(MODEL, revision, device="cpu")
    return model.fingerprint, model.revision


def load_types(revision: str | None = None) -> pd.DataFrame:
    return sample_hub(TYPES, revision, **CHOICE)


def paper(run: str, **changes) -> Study:
    """The study of the paper's profile, smaller in nothing but numbers."""
    return Study(Parameters.from_profile("paper", run=run, device="cpu", **SIZES, **changes))


def whole_paper(run: str) -> dict:
    """What the paper's setting comes to: every table of elements and types, and what is kept beside them."""
    study = paper(run)
    study.record_run()
    p, models = study.parameters, language_model.masked_models(study.masked_model)
    structures, types, samples = (
        study.activations("structures"),
        study.activations("types"),
        paper_records(run),
    )
    masked = study.training, samples["structures"].groupby("split").head(3).assign(set="unseen families")
    probed = {language_model.TRAINED: study.model, language_model.RANDOM: study.random_model}
    return {
        "record": json.loads((study.run.folder / "run.json").read_text()),
        "layer table": layers.by_layer(study.summary(p.main), types),
        "element scores": study.kept(structure_features.score_elements, structures, shuffles=2),
        "type scores": study.kept(type_features.score_types, types, shuffles=2),
        "masked bases": language_model.masked_accuracy(models, *masked, p.seed),
        "probes": language_model.linear_probes(probed, study.structures, study.layers, p.seed, 5),
        "revision": study.autoencoders()[1].config.revision,
    } | samples


def paper_records(run: str, **changes) -> dict:
    study = paper(run, **changes)
    return {"structures": study.structures, "types": pd.concat([study.training, study.types])}


# ---- the paper's setting


def test_the_papers_profile_goes_from_the_hub_to_its_tables_and_again_without_it(hub, ask, records, tmp_path):
    hub.faults.append(Fault("missing", SHARD))
    with pytest.raises(ValueError, match=f"^{TYPES} cannot be read"):
        ask(whole_paper, str(tmp_path / "run"))
    steps = [path.name.rpartition("-")[0] for path in (tmp_path / "run").iterdir() if path.is_dir()]
    assert steps == ["sample-structures"]
    hub.faults.clear()
    result = ask(whole_paper, str(tmp_path / "run"))

    record = result["record"]
    assert record["model"]["source"] == MODEL
    assert record["model"]["revision"] == result["revision"] == hub.commit(f"models/{MODEL}")
    for name, source in (("structures", STRUCTURES), ("types", TYPES)):
        facts = record["data"][name]
        assert facts["source"] == source and facts["revision"] == hub.commit(f"datasets/{source}")
        assert facts["hash"] == file_hash(str(tmp_path / "run" / facts["sample"]))
    assert record["data"]["types"]["records"] == 403
    assert record["data"]["types"]["left_out"] == {"with a gap or space": 1, "with an unknown letter": 1}

    typed, structured = result["types"], result["structures"]
    pairs, known = (set(frame[["sequence", "type"]].agg(tuple, axis=1)) for frame in (typed, records))
    assert pairs <= known
    assert typed.id.is_unique and typed.sequence.is_unique and typed.type.nunique() == 5
    counts = typed.groupby(["split", "type"]).size()
    assert counts["train"].eq(SIZES["per_type"]).all()
    assert counts.drop("train").max() == SIZES["per_split"] // 5
    assert set(structured.split) == {"selection", "heldout"}
    assert structured.groupby("split").size().max() == SIZES["per_split"]
    known = records.set_index("id")
    assert structured.element.tolist() == known.element[structured.id].tolist()

    assert set(result["layer table"].architecture) == {"topk", "relu-l1", "relu-l1-matched"}
    for table in ("layer table", "element scores", "type scores", "probes"):
        assert sorted(result[table].layer.dropna().unique()) == list(range(1, 34))
    both = {"language model", "same architecture, random weights"}
    assert both <= set(result["masked bases"].predictor) and both <= set(result["probes"].source)
    assert {"S", "H"} <= set(result["element scores"].element)
    assert set(result["type scores"].type) == set(typed.type)

    hub.stop()
    again = ask(whole_paper, str(tmp_path / "run"))
    for table in ("layer table", "element scores", "type scores", "types", "structures"):
        pd.testing.assert_frame_equal(again[table], result[table])
    uses = ("structures", "types")
    samples = {use: str(tmp_path / "run" / record["data"][use]["sample"]) for use in uses}
    elsewhere = ask(paper_records_from, str(tmp_path / "elsewhere"), samples)
    for table in uses:
        pd.testing.assert_frame_equal(elsewhere[table], result[table])
    hub.start()


def paper_records_from(run: str, samples: dict) -> dict:
    return paper_records(run, **samples)


def test_a_tag_is_recorded_as_the_commit_it_stands_for_and_an_unknown_one_is_named(hub, ask):
    assert ask(load_model, "v1")[1] == hub.commit(f"models/{MODEL}")
    assert ask(load_types, "v1").attrs["revision"] == hub.commit(f"datasets/{TYPES}")
    for load, source in ((load_model, MODEL), (load_types, TYPES)):
        remedy = "check its name, its revision and the network"
        with pytest.raises(ValueError, match=f"^{source} cannot be .*Revision Not Found.*v2.*{remedy}"):
            ask(load, "v2")


# ---- faults


@pytest.fixture(scope="module")
def model(giga):
    return LanguageModel.load(str(giga), device="cpu").fingerprint


@pytest.fixture(scope="module")
def sample(repositories):
    """The sample of types, drawn without a hub."""
    files = [
        content for name, content in repositories[f"datasets/{TYPES}"].items() if name.endswith(".parquet")
    ]
    with pytest.warns(
        UserWarning,
        match=f"{TYPES}: of 403 records 1 with a gap or space; 1 with an unknown letter, all left out",
    ):
        return sample_stream(map(pd.read_parquet, map(BytesIO, files)), TYPES, **CHOICE)


def test_a_model_that_is_cut_on_its_way_is_resumed_where_it_was_cut(hub, ask, model):
    hub.faults.append(Fault("cut", WEIGHTS, times=1))
    assert ask(load_model)[0] == model
    first, second = [
        asked for method, path, asked in hub.requests if method == "GET" and path.endswith(WEIGHTS)
    ]
    assert first is None and int(second.removeprefix("bytes=").removesuffix("-")) > 100_000


@pytest.mark.parametrize("kind", ["cut", "503"])
def test_a_data_set_that_is_cut_or_out_of_order_once_is_asked_again(hub, ask, sample, kind):
    hub.faults.append(Fault(kind, f"resolve/{hub.commit(f'datasets/{TYPES}')}/data/{SHARD}", times=1))
    pd.testing.assert_frame_equal(ask(load_types), sample)
    asked = [asked for _, path, asked in hub.requests if path.endswith(SHARD)]
    assert asked[0] == asked[1]


def test_a_hub_that_is_out_of_order_for_a_moment_is_asked_again_for_a_model(hub, ask, model):
    hub.faults.append(Fault("503", "resolve", times=1))
    assert ask(load_model)[0] == model


CUT, OUT_OF_ORDER, ABSENT = "peer closed connection", "503 Service Unavailable", "Entry Not Found"


@pytest.mark.parametrize(
    ("load", "fault", "reason"),
    [
        (load_model, ("cut", WEIGHTS), CUT),
        (load_model, ("503", ""), OUT_OF_ORDER),
        (load_model, ("503", WEIGHTS), OUT_OF_ORDER),
        (load_model, ("damage", WEIGHTS), f"damaged on the way and removed: {WEIGHTS}"),
        (load_model, ("damage", "/config.json"), "damaged on the way and removed: config.json"),
        (load_model, ("short", WEIGHTS), "should be of size"),
        (load_model, ("missing", WEIGHTS), ABSENT),
        (load_model, None, "Connection refused"),
        (load_types, ("cut", SHARD), "Server Disconnected"),
        (load_types, ("503", ""), OUT_OF_ORDER),
        (load_types, ("503", SHARD), OUT_OF_ORDER),
        (load_types, ("damage", SHARD), ""),
        (load_types, ("short", SHARD), "Parquet"),
        (load_types, ("missing", SHARD), ABSENT),
        (load_types, None, "Connection refused"),
    ],
)
def test_a_fault_ends_in_one_sentence_and_is_gone_when_its_cause_is(
    hub, ask, serving, model, sample, load, fault, reason
):
    source = MODEL if load is load_model else TYPES
    if fault:
        hub.faults.append(Fault(*fault))
    else:
        hub.stop()
    with pytest.raises(ValueError) as caught:
        ask(load)
    message = str(caught.value)
    assert message.startswith(source) and reason in message and "\n" not in message
    assert any(
        remedy in message
        for remedy in ("check its name, its revision and the network", "load the model again")
    )
    assert not list(serving[1].rglob("*.incomplete"))
    hub.faults.clear()
    if not fault:
        hub.start()
    if load is load_model:
        assert ask(load)[0] == model
    else:
        pd.testing.assert_frame_equal(ask(load), sample)


def test_a_model_that_was_loaded_once_is_loaded_without_the_hub(hub, ask):
    before = ask(load_model)
    hub.stop()
    assert ask(load_model) == before
    hub.start()


def test_names_that_the_hub_does_not_know_are_named(hub, ask):
    hub.repositories, known = {}, hub.repositories
    for load, source in ((load_model, MODEL), (load_types, TYPES)):
        with pytest.raises(ValueError, match=f"^{source} cannot be .*Repository Not Found"):
            ask(load)
    hub.repositories = known
