"""Exported networks compute what the network does: exactly where all sums are exact, and else but for rounding."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from exact_networks import dyadic
from onnx import TensorProto
from onnx import load as read_onnx
from quick_runs import quick, quick_on_events
from torch import Tensor, nn

from spikedistill import LIF, Recurrent, UserError, create_model, evaluate, export, load, temporal, train
from spikedistill.cli import main
from spikedistill.config import DataConfig
from spikedistill.data import Preprocess, load_dataset
from spikedistill.evaluation import Conformal, exit_times
from spikedistill.evaluation.results import read_results
from spikedistill.exporting import (
    CannotExpress,
    Description,
    Exit,
    ExportDiffers,
    FlatStep,
    Options,
    WholeSequence,
    from_nir,
    nir,
    nir_reading,
    onnx,
    verify,
)
from spikedistill.exporting import archive as torch_archive
from spikedistill.run_folder import RunFolder
from spikedistill.through_time import Delay

T = 4
INT8 = TensorProto.INT8
GREY = Preprocess("image", 1, (10, 10))


def described(step: FlatStep, form="step") -> Description:
    return Description(
        form, T, [str(c) for c in range(step.classes)], GREY, step.state, Exit("confidence", 0.9, "test")
    )


def runners(step: FlatStep, x: Tensor) -> dict:
    about, keys = described(step), [each.key for each in step.state]
    inputs = [x[:4], *step.initial(4)]
    return {
        "onnx": onnx.runner(onnx.onnx_of(step, inputs, about), about),
        "torch": torch_archive.runner(torch_archive.archive_of(step, inputs, about)),
        "nir": nir_reading.runner(nir.nir_of(step.network, x[:1], about), keys),
    }


def test_every_format_agrees_spike_by_spike_where_all_sums_are_exact(quarters: Tensor):
    step = FlatStep(dyadic(v_reset=0.0), quarters[:4])
    assert [each.key for each in step.state] == ["1", "4"]
    whole = step.network(quarters, T)
    assert (whole != 0).float().mean() > 0.05
    for name, run in runners(step, quarters).items():
        state, own = step.initial(40), step.initial(40)
        for t in range(T):
            logits, state = run(quarters, state)
            expected, *own = step(quarters, *own)
            assert torch.equal(logits, expected), (name, t)
            assert torch.equal(logits, whole[t]), (name, t)
            for mine, other in zip(own, state, strict=True):
                assert torch.equal(mine, other), (name, t)
        found = verify(step, run, [quarters] * T, Exit("confidence", 0.9))
        assert (found.different, found.flips, found.largest, found.silent) == (0, 0, 0.0, ())


def test_soft_reset_a_learned_start_and_statistics_per_timestep_have_a_first_state(quarters: Tensor):
    net = dyadic()
    net.module[1] = LIF(v_init="learned", threshold="learned_per_channel", channels=6)
    net.module[1].v_init.data = torch.tensor([0.5, 0.0, 0.25, -0.5, 0.0, 0.125])
    net.module[4] = LIF(v_init="half")
    step = FlatStep(net, quarters[:4])
    assert step.state[0].start == [[[0.5]], [[0.0]], [[0.25]], [[-0.5]], [[0.0]], [[0.125]]]
    assert step.state[1].start == 0.5
    for name in ("onnx", "torch"):
        inputs = [quarters[:4], *step.initial(4)]
        about = described(step)
        run = (
            onnx.runner(onnx.onnx_of(step, inputs, about), about)
            if name == "onnx"
            else torch_archive.runner(torch_archive.archive_of(step, inputs, about))
        )
        assert verify(step, run, [quarters] * T, Exit()).different == 0
    model = create_model(
        "convnet", num_classes=5, in_channels=1, image_size=10, norm="timestep_batch", norm_timesteps=T
    )
    model.train()(quarters, T)
    for name, parameter in model.named_parameters():
        if ".1.weight" in name:
            parameter.data.fill_(3)  # of batch-norms, so that all layers fire
    step = FlatStep(model.eval(), quarters[:4])
    assert "int64" in {each.dtype for each in step.state}
    about = described(step)
    run = onnx.runner(onnx.onnx_of(step, [quarters[:4], *step.initial(4)], about), about)
    assert verify(step, run, [quarters] * (T + 1), Exit()).different == 0


def test_what_remembers_between_timesteps_is_part_of_the_state(quarters: Tensor):
    net = dyadic()
    layers = [*net.module[:2], Delay(2), *net.module[2:]]
    step = FlatStep(temporal(nn.Sequential(*layers)).eval(), quarters[:4])
    assert [each.key for each in step.state] == ["1", "2", "5"]
    about = described(step)
    run = onnx.runner(onnx.onnx_of(step, [quarters[:4], *step.initial(4)], about), about)
    assert verify(step, run, [quarters] * T, Exit()).different == 0
    with pytest.raises(CannotExpress, match=r"would lose the soft reset.*, of 1, 5; a Delay"):
        nir.nir_of(step.network, quarters[:1], about)


def test_the_whole_sequence_and_event_frames(quarters: Tensor):
    step = FlatStep(dyadic(), quarters[:4])
    about = described(step, "sequence")._replace(state=())
    for content, open_ in (
        (onnx.onnx_of(WholeSequence(step.network, T), [quarters[:4]], about), lambda c: onnx.runner(c, about)),
        (torch_archive.archive_of(WholeSequence(step.network, T), [quarters[:4]], about), torch_archive.runner),
    ):
        assert torch.equal(open_(content)(quarters, [])[0], step.network(quarters, T))
    frames = torch.stack([quarters, quarters.flip(2), quarters.flip(3)])
    events = about._replace(input=Preprocess("events", 1, (10, 10)), timesteps=3)
    content = onnx.onnx_of(WholeSequence(step.network, None), [frames[:, :4]], events)
    assert torch.equal(onnx.runner(content, events)(frames, [])[0], step.network(frames))


def test_differences_are_found_and_those_at_a_threshold_are_told_apart(quarters: Tensor):
    step = FlatStep(dyadic(), quarters[:4])

    def changed(network_change):
        other = FlatStep(dyadic(), quarters[:4])
        network_change(other.network.module)

        return other.run

    def lower(module):
        module[1].threshold = 0.99

    def heavier(module):
        module[3].weight.data += 0.01

    for change, layer in ((lower, "1"), (heavier, "4")):
        with pytest.raises(ExportDiffers, match=f"differs at '{layer}' in timestep 1, from identical inputs"):
            verify(step, changed(change), [quarters] * T, Exit())

    def nearly(module):
        module[1].threshold = 1 + 1e-6  # membranes of exactly 1 no longer fire

    with pytest.raises(ExportDiffers, match="prediction or an exit time"):
        verify(step, changed(nearly), [quarters] * T, Exit("confidence", 0.9))

    def silent(module):
        module[0].weight.data.zero_()
        module[0].bias.data.zero_()
        module[3].bias.data.zero_()

    quiet = FlatStep(dyadic(), quarters[:4])
    silent(quiet.network.module)
    with pytest.raises(UserError, match="a silent network agrees with anything"):
        verify(quiet, changed(silent), [quarters] * T, Exit())


def classified(path: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Answers and exit times by NumPy and ONNX Runtime alone."""
    session = onnxruntime.InferenceSession(path)
    about = json.loads(session.get_modelmeta().custom_metadata_map["spikedistill"])
    state = {s["input"]: np.full((len(images), *s["shape"]), s["start"], s["dtype"]) for s in about["state"]}
    total, exits, answers = 0, np.zeros(len(images), int), np.zeros(len(images), int)
    for t in range(1, about["timesteps"] + 1):
        logits, *after = session.run(None, {"input": images, **state})
        state = dict(zip(state, after, strict=True))
        total = total + logits.astype(np.float64)
        p = np.exp(total / t - (total / t).max(1, keepdims=True))
        done = (p / p.sum(1, keepdims=True)).max(1) >= about["exit"]["threshold"]
        now = (exits == 0) & (done | (t == about["timesteps"]))
        exits[now], answers[now] = t, total.argmax(1)[now]
    return answers, exits


def exits_as_the_results_say(run: Path, out: Path, root: Path | None = None) -> None:
    policy = read_results(RunFolder(run)).deployment.policies["confidence"]
    point = next(point for point in policy if point.mean_exit > 1.2)
    made = export(run, "onnx", out, Options(threshold=point.threshold), root=root)
    assert made.verified.samples >= 500
    assert made.verified.different <= 0.005 * made.verified.samples
    config = RunFolder(run).config()
    test = load_dataset(config.data.name, root=root).test
    answers, exits = zip(
        *(
            classified(out, (test.inputs(torch.arange(start, min(start + 1000, len(test)))) / 255).numpy())
            for start in range(0, len(test), 1000)
        ),
        strict=True,
    )
    exits, right = np.concatenate(exits), np.concatenate(answers) == test.targets.numpy()
    logits = RunFolder(run).read_tensors(RunFolder(run).logits, "logits")["logits"]
    expected = exit_times(logits, "confidence", point.threshold).numpy()
    assert (exits != expected).mean() <= 0.002
    assert exits.mean() == pytest.approx(point.mean_exit, abs=0.01)
    assert right.mean() == pytest.approx(point.accuracy, abs=0.004)


def test_an_onnx_file_exits_early_as_the_results_say(run: Path, tmp_path: Path):
    exits_as_the_results_say(run, tmp_path / "step.onnx")


@pytest.mark.data
def test_an_onnx_file_exits_early_as_the_results_say_on_ten_thousand_images(data_root: Path, tmp_path: Path):
    data = DataConfig(name="fashion_mnist", root=data_root, batch_size=64, train_samples=3000)
    run = Path(train(quick("fashion_mnist-twce", out=tmp_path / "run", epochs=2, data=data)))
    evaluate(run)
    exits_as_the_results_say(run, tmp_path / "step.onnx", data_root)


def test_eight_bits_keep_their_accuracy_at_every_k(run: Path, tmp_path: Path):
    made = export(run, "onnx", tmp_path / "int8.onnx", Options(int8=True))
    whole = export(run, "onnx", tmp_path / "float.onnx")
    assert max(a - b for a, b in zip(whole.accuracy, made.accuracy, strict=True)) <= 1
    weights = {
        tensor.name: tensor.data_type
        for tensor in read_onnx(tmp_path / "int8.onnx").graph.initializer
        if tensor.name.endswith("weight_quantized")
    }
    assert [*weights.values()] == [INT8] * 4, "three convolutions and a linear layer"
    assert made.verified is None


def test_the_torch_archive_runs_without_this_library(run: Path, tmp_path: Path):
    export(run, "torch", tmp_path / "step.pt2")
    images = torch.rand(3, 1, 8, 8)
    torch.save(images, tmp_path / "images.pt")
    code = f"""
import json, sys, torch
extra = {{"spikedistill.json": ""}}
step = torch.export.load({str(tmp_path / "step.pt2")!r}, extra_files=extra).module()
about = json.loads(extra["spikedistill.json"])
x = torch.load({str(tmp_path / "images.pt")!r})
state = [torch.full((len(x), *s["shape"]), s["start"]) for s in about["state"]]
for _ in range(3):
    logits, *state = step(x, *state)
assert "spikedistill" not in sys.modules
print(logits.argmax(1).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == load(run)(images, 3)[2].argmax(1).tolist()


def test_a_nir_file_holds_a_trained_network_and_comes_back_to_be_trained(hard_run: Path, tmp_path: Path):
    made = export(hard_run, "nir", tmp_path / "net.nir")
    assert made.verified.different <= 0.005 * made.verified.samples
    back = from_nir(tmp_path / "net.nir")
    images = load_dataset("digits").test.inputs(torch.arange(60)) / 255
    assert torch.equal(back(images, 3).mean(0).argmax(1), load(hard_run)(images, 3).mean(0).argmax(1))
    before = [parameter.clone() for parameter in back.parameters()]
    logits = back.train()(images, 3)
    assert logits.requires_grad
    from spikedistill.objectives import create_objective

    optimizer = torch.optim.SGD(back.parameters(), 0.1)
    create_objective("s2w")(logits, torch.arange(60) % 10).total.backward()
    optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, back.parameters(), strict=True))


def test_a_threshold_that_is_met_exactly_fires_on_both_sides_of_a_nir_file():
    net = temporal(nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), LIF(v_reset=0.0), nn.Linear(2, 2))).eval()
    net.module[1].weight.data = torch.eye(2)
    x = torch.tensor([[[[1.0, float(np.nextafter(np.float32(1), np.float32(0)))]]]])  # at the threshold, and just below
    step = FlatStep(net, x.expand(2, 1, 1, 2))
    about = described(step)
    content = nir.nir_of(net, x, about)
    run = nir_reading.runner(content, ["2"])
    _, (after,) = run(x, step.initial(1))
    assert after.tolist() == [[0.0, x[0, 0, 0, 1].item()]], "the first has fired"


def test_what_nir_would_lose_is_listed(run: Path, tmp_path: Path, quarters: Tensor):
    with pytest.raises(CannotExpress, match=r"it would lose the soft reset.*train with --model.lif.v-reset 0"):
        export(run, "nir", tmp_path / "net.nir")
    assert not (tmp_path / "net.nir").exists()
    recurrent = nn.Sequential(nn.Flatten(), Recurrent(nn.Linear(100, 100), nn.Linear(100, 100)), nn.MaxPool1d(2))
    net = temporal(nn.Sequential(*recurrent, LIF(v_reset=0.0, v_init=0.5))).eval()
    with pytest.raises(
        CannotExpress, match=r"a Recurrent layer; max_pool1d; the membrane before the first timestep, of 3"
    ):
        nir.nir_of(net, quarters[:1], described(FlatStep(dyadic(), quarters[:4])))


def test_a_fresh_network_a_wrong_option_and_a_missing_run_are_refused(run: Path, tmp_path: Path, capsys):
    for words, said in (
        (["--format", "nir", "--form", "sequence"], "nir holds a step, which is called T times"),
        (["--format", "torch", "--int8"], "8 bits are for the step of an ONNX file"),
        (["--format", "onnx", "--licence", "mit"], "the licence is for the card of a bundle"),
        (["--format", "onnx", "--runtime", "."], "runtime is for the page"),
        (["--format", "onnx", "--threshold", "1.5"], "threshold is 1.5"),
    ):
        assert main(["export", str(run), "--out", str(tmp_path / "x"), *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["export", str(tmp_path / "none"), "--format", "onnx", "--out", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="no format is called 'tflite': choose one of onnx, torch"):
        export(run, "tflite", tmp_path / "x")
    with pytest.raises(UserError, match="form is 'whole', expected one of step, sequence"):
        export(run, "onnx", tmp_path / "x", Options(form="whole"))
    for options, said in (
        (
            Options(policy=Conformal((1.0,) * 3, 0.9)),
            "an export holds a score with one threshold, and no conformal rule",
        ),
        (Options(policy="gap", threshold=(1.0, 2.0, 3.0)), "holds one threshold for all timesteps, got 3: give one"),
    ):
        with pytest.raises(UserError, match=said):
            export(run, "onnx", tmp_path / "x", options)
    assert not (tmp_path / "x").exists()
    assert main(["export", str(run), "--format", "onnx", "--out", str(tmp_path / "x.onnx"), "--form", "sequence"]) == 0
    said = capsys.readouterr().out
    assert "accuracy, %" in said
    assert "stops at a confidence of" in said


def test_an_ann_and_a_silent_run(tmp_path: Path):
    ann = train(quick("digits-ann", out=tmp_path / "ann", timesteps=1))
    made = export(ann, "onnx", tmp_path / "ann.onnx")
    assert made.description.state == ()
    assert made.description.exit.threshold is None
    silent = train(quick("digits-sce", out=tmp_path / "silent"))
    with pytest.raises(UserError, match="a silent network agrees with anything"):
        export(silent, "onnx", tmp_path / "silent.onnx")
    assert not (tmp_path / "silent.onnx").exists()


@pytest.mark.usefixtures("fresh_names")
def test_a_run_on_event_frames_is_exported_and_takes_one_frame_a_timestep(tmp_path: Path, capsys):
    run = train(quick_on_events(out=tmp_path / "run", epochs=8))
    made = export(run, "onnx", tmp_path / "step.onnx")
    assert made.description.input.kind == "events"
    assert made.accuracy[-1] > 80
    sequence = export(run, "onnx", tmp_path / "whole.onnx", Options(form="sequence"))
    assert sequence.accuracy == pytest.approx(made.accuracy)
    bundle = tmp_path / "bundle"
    export(run, "bundle", bundle, Options(threshold=0.9))
    frames = load_dataset("halves").test.inputs(torch.arange(5)).transpose(0, 1)
    assert torch.equal(load(bundle)(frames), load(run)(frames))
    assert main(["export", str(run), "--format", "web", "--out", str(tmp_path / "page")]) == 2
    assert "the page takes images, and the network takes event frames" in capsys.readouterr().err


def test_a_folder_in_the_place_of_the_file_is_left_alone(run: Path, tmp_path: Path, capsys):
    (tmp_path / "models").mkdir()
    assert main(["export", str(run), "--format", "onnx", "--out", str(tmp_path / "models")]) == 2
    assert "models" in capsys.readouterr().err
    assert (tmp_path / "models").is_dir()
