"""Mutated files and values: each is read correctly or refused in one sentence that names file and place.

How many are tried: 500, or as many as the environment's SAE_RNA_FUZZ says; SAE_RNA_FUZZ_RESULTS names a file
for the table of outcomes.
"""

import contextlib
import os
import re
import resource
import signal
import time
import warnings
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import ODD_WORDS, harmless, mutated, samples, write

from sae_rna.parameters import ROOT, Parameters, read_profile, read_yaml
from sae_rna.records.checks import validate
from sae_rna.records.readers import READERS, read_records
from sae_rna.records.structure import ELEMENTS, add_elements

TRIED = int(os.environ.get("SAE_RNA_FUZZ", 500))
SECONDS, BYTES = 5, 1 << 30  # of processor time and of memory that one input may take
LONGEST = 700  # characters of a sentence beside the values that it cites
OUTCOMES: Counter = Counter()
_PLACE = re.compile(r"(line|record|number|position|column|row|header|suffix|symbol|block|title|field)\b")
_WHOLE = re.compile(  # of faults that have no place in the file
    r"is empty|no records|packed|no text|gzip|Parquet|Thrift|[Cc]ompress|CRC check|snappy|base64|No columns"
)
_REMEDY = "; mend the file or give it the suffix of its format"
_FIXED = {"deadline": None, "derandomize": True, "database": None}
_FIXED["suppress_health_check"] = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def share(part: float) -> settings:
    """Settings for a part of all inputs, the same in every run."""
    return settings(max_examples=max(1, round(TRIED * part)), **_FIXED)


@pytest.fixture(scope="module", autouse=True)
def results():
    """The table of outcomes, if one is asked for."""
    yield
    if path := os.environ.get("SAE_RNA_FUZZ_RESULTS"):
        lines = [f"| {what} | {how} | {n:,} |" for (what, how), n in sorted(OUTCOMES.items())]
        head = ["| input | outcome | inputs |", "| --- | --- | --- |"]
        Path(path).write_text("\n".join([*head, *lines, f"| all | | {OUTCOMES.total():,} |"]) + "\n")


class Hang(Exception):
    """An input took too long."""


@contextlib.contextmanager
def bounded():
    """Hang for what takes longer than SECONDS, MemoryError for what takes more than BYTES."""

    def hang(*_):
        raise Hang(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGPROF, hang)
    limits, began = resource.getrlimit(resource.RLIMIT_AS), time.process_time()
    with contextlib.suppress(FileNotFoundError):  # /proc is Linux'
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)
    if time.process_time() - began > SECONDS:
        raise Hang(f"more than {SECONDS} s")


def check_sentence(said: str, named: str):
    """It is one sentence, and says where."""
    assert named in said, said
    assert "\n" not in said and "Traceback" not in said, said
    assert len(said) < LONGEST, said[:300]


def check_sound(records, path):
    """What was read keeps every promise of `validate`, and its structures can be used."""
    assert records.id.is_unique and (records.id.str.len() > 0).all()
    assert records.sequence.str.fullmatch("[ACGUNRYSWKMBDHVIX]+").all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = validate(records, path)
    assert again.equals(records)
    if "secondary_structure" in records and records.sequence.str.len().max() < 200:
        element = add_elements(records.drop(columns="element", errors="ignore")).element
        assert element.str.len().equals(records.sequence.str.len())
        assert element.str.fullmatch(f"[{''.join(ELEMENTS)}]+").all()


@share(0.6)
@given(file=mutated())
def test_a_mutated_file_is_read_correctly_or_refused_in_one_sentence(tmp_path, file):
    path = write(tmp_path, *file)
    try:
        with warnings.catch_warnings(), bounded():
            warnings.simplefilter("ignore")
            records = read_records(path)
    except ValueError as error:
        said = str(error)
        check_sentence(said, str(path))
        fault = said.removesuffix(_REMEDY).replace(str(path), "")
        assert _PLACE.search(fault) or _WHOLE.search(fault), said
        OUTCOMES["mutated file", "refused in one sentence"] += 1
    else:
        with bounded():
            check_sound(records, path)
        OUTCOMES["mutated file", "read, and sound"] += 1
    finally:
        path.unlink()


@share(0.15)
@given(file=harmless())
def test_what_changes_nothing_of_the_records_changes_nothing(tmp_path, file):
    suffix, name, data = file
    (tmp_path / "plain").mkdir(exist_ok=True)  # the same name: records without one are called like their file
    plain, path = write(tmp_path / "plain", f"rna{suffix}", samples()[suffix]), write(tmp_path, name, data)
    try:
        with bounded():
            assert read_records(path).to_dict("records") == read_records(plain).to_dict("records")
    finally:
        path.unlink()
    OUTCOMES["harmless change of a file", "the same records"] += 1


@pytest.mark.parametrize("suffix", sorted(samples()))
def test_the_samples_hold_what_they_should(tmp_path, suffix):
    records = read_records(write(tmp_path, f"one{suffix}", samples()[suffix]))
    assert records.id[0].split("/")[-1] == "one" and records.sequence[0] == "GGCAAAAGCCA"
    assert suffix == ".fa" or records.secondary_structure[0] == "(((....)))."


def test_every_kind_of_reader_has_a_sample():
    assert {READERS[suffix] for suffix in samples()} == set(READERS.values())


NAMES = [item.name for item in fields(Parameters)]
ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([10**18, 2**63, 2**64, -(2**63), 10**400]),
    st.floats(),
    st.sampled_from([*ODD_WORDS, "1e-3", "1_000", "0x10", "1e-3 ", "all", "auto", "paper", "topk", "½", "٣"]),
    st.lists(st.one_of(st.integers(-1, 9), st.sampled_from(ODD_WORDS), st.none()), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.dates(),
    st.binary(max_size=4),
    st.just([[[]]]),
)


def check_parameters(p: Parameters):
    """Accepted values are of their kind, and what is derived from them can be computed."""
    values = asdict(p)
    counts = "expansion narrow k batch per_type per_split longest min_sequences top_k shuffles".split()
    for name in [*counts, "buffer_tokens", "layer_group"]:
        assert type(values[name]) is int and 0 < values[name] < 2**63, name
    for name in ("l1", "l0", "sae_learning_rate", "epochs"):
        assert type(values[name]) is float and 0 <= values[name] < float("inf"), name
    assert type(p.seed) is int and 0 <= p.seed and p.seed + p.replicates < 2**63
    assert all(place.strip() and place.isprintable() for place in (p.run, p.model, p.structures, p.types))
    if p.layers != "all":
        assert len(set(p.layers)) == len(p.layers)
    assert p.variants if p.replicates < 100 else True


@share(0.15)
@given(name=st.sampled_from(NAMES), value=ODD_VALUES)
def test_an_odd_value_is_taken_rightly_or_refused_by_its_parameters_name(name, value):
    try:
        with bounded():
            p = Parameters(**{name: value})
    except ValueError as error:
        check_sentence(str(error), f"'{name}'")
        OUTCOMES["value of a parameter", "refused in one sentence"] += 1
    else:
        check_parameters(p)
        OUTCOMES["value of a parameter", "taken"] += 1


@st.composite
def profiles(draw) -> bytes:
    """A profile with one to three mutations, of its values or of its text."""
    lines = (ROOT / "profiles" / "smoke.yml").read_text().splitlines()
    for _ in range(draw(st.integers(1, 3))):
        word = draw(st.sampled_from([*ODD_WORDS[:12], "[1, 2", "{a: 1", "&a *a", "!!python/name:os.system",
                                     "2020-13-45", "1:30", "yes", "[" * 2000, "'", "- 1", ": :", "é", "!!set x",
                                     "!!binary ====", "*b", "<<", "1.5.2", "0o9", "\t1", "~"]))  # fmt: skip
        at = draw(st.integers(0, len(lines) - 1))
        name = lines[at].partition(":")[0]
        new = [
            f"{name}: {word}",
            f"{word}: {name}",
            word,
            name,
            f"{lines[at]}\n{lines[at]}",
            f"  {lines[at]}",
        ]
        lines[at] = draw(st.sampled_from(new))
    data = ("\n".join(lines) + "\n").encode(draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"])),
                                            errors="replace")  # fmt: skip
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(max_size=2)) + data[at:]


@share(0.07)
@given(data=profiles())
def test_a_mutated_profile_is_taken_rightly_or_refused_by_name(tmp_path, data):
    path = write(tmp_path, "mine.yml", data)
    try:
        with bounded():
            p = Parameters(**read_profile(str(path)))
    except ValueError as error:
        said = str(error)
        named = re.search(r"parameter '([^']*)'", said)
        check_sentence(said, named[0] if named else str(path))
        OUTCOMES["profile", "refused in one sentence"] += 1
    else:
        check_parameters(p)
        OUTCOMES["profile", "taken"] += 1


@share(0.03)
@given(text=st.one_of(st.text(max_size=20), st.sampled_from([*ODD_WORDS, "[" * 5000, "2020-13-45", "!!x y"])))
def test_a_value_of_the_command_line_is_read_or_refused_by_name(text):
    try:
        with bounded():
            read_yaml(text, "the value of 'k'")
    except ValueError as error:
        check_sentence(str(error), "the value of 'k'")
        OUTCOMES["value on the command line", "refused in one sentence"] += 1
    else:
        OUTCOMES["value on the command line", "read"] += 1
