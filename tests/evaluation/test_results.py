"""`results.json` has one schema: what evaluation writes is held against it, and every reader reads by it."""

import json

import pytest
from quick_runs import quick
from safetensors.torch import load_file

from spikedistill import load
from spikedistill.data import load_dataset
from spikedistill.evaluation import evaluate
from spikedistill.evaluation.comparison.records import RunRecord
from spikedistill.evaluation.results import Results, read_results, write_results
from spikedistill.run_folder import RunFolder
from spikedistill.training import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return RunFolder(train(quick("digits-sce", out=tmp_path_factory.mktemp("results") / "run")))


def test_the_schema_names_everything_that_evaluation_writes(run):
    """Apart from the figures of energy that no page shows: a key that it does not know would be let pass in silence."""
    written = json.loads(run.results.read_bytes())
    kept = read_results(run).model_dump(by_alias=True, exclude_unset=True, mode="json")
    for results in (written, kept):
        if energy := results["deployment"]["energy"]:
            energy.pop("synaptic_pj", None)
        for entry in results["last"]["beyond"]:  # of which pages show the accuracy
            for key in entry.keys() - {"k", "accuracy"}:
                del entry[key]
    assert kept == written
    assert list(written) == [name for name in Results.model_json_schema(by_alias=True)["properties"] if name in written]


def test_a_record_keeps_the_scores_to_the_byte(run):
    last = json.loads(run.results.read_bytes())["last"]
    line = json.loads(RunRecord.of(run.path).to_json("run", run.path.parent))
    assert json.dumps(line["results"]) == json.dumps({key: last[key] for key in ("ensemble", "single", "firing_rates")})


def test_what_does_not_fit_the_schema_is_never_written(run):
    before = run.results.read_bytes()
    results = json.loads(before)
    for wrong in ({"last": results["last"] | {"single": []}}, {"timesteps": 0}):
        with pytest.raises(ValueError, match=r"single|timesteps"):
            write_results(run, results | wrong)
    assert run.results.read_bytes() == before
    with run.rewriting(run.results):
        write_results(run, results)
    assert run.results.read_bytes() == before
    assert evaluate(run.path) == results
    assert run.results.read_bytes() == before


def test_the_loaded_network_and_the_logits_of_a_run_have_the_scores_of_the_run(run):
    written, saved = json.loads(run.results.read_bytes()), load_file(run.logits)
    T = written["timesteps"]
    of_network = evaluate(load(run.path), load_dataset("digits"), timesteps=T, energy=False)
    of_logits = evaluate(saved["logits"], saved["targets"])
    for found in (of_network, of_logits):
        for part in ("ensemble", "single", "reliability"):
            assert found["last"][part] == written["last"][part], part
        Results.model_validate(found).check()
    assert of_network["last"]["firing_rates"] == written["last"]["firing_rates"]
    assert of_network["classes"] == written["classes"]


def test_other_schemas_are_refused_by_every_reader(run):
    before, results = run.results.read_bytes(), json.loads(run.results.read_bytes())
    with run.rewriting(run.results):
        run.results.write_text(json.dumps(results | {"schema": 2}))
    try:
        for read in (read_results, lambda run: RunRecord.of(run.path)):
            with pytest.raises(ValueError, match=r"results\.json is broken \(schema: .*\): evaluate the run again"):
                read(run)
    finally:
        with run.rewriting(run.results):
            run.results.write_bytes(before)
