"""Names of version 0.1.0 work in this version, and each says what it is called now. docs/changes.md lists them."""

import subprocess
import sys

import pytest

# In a process of its own, because it puts the old package in the place of the function of the same name.
OLD_PACKAGE = """
import warnings
import spikedistill
function = spikedistill.temporal
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    from spikedistill.temporal import CompiledStep
assert "use spikedistill.through_time.CompiledStep" in str(said[0].message), said
assert said[0].category is FutureWarning and said[0].filename == "<string>", said[0]
from spikedistill import temporal
import torch
logits = temporal(torch.nn.Sequential(torch.nn.Linear(3, 2), spikedistill.LIF()), gradient="sltt")(torch.rand(5, 3), 4)
assert logits.shape == (4, 5, 2), logits.shape
assert spikedistill.through_time.CompiledStep is CompiledStep and function is spikedistill.through_time.temporal
try:
    from spikedistill.temporal import nothing
except ImportError:
    print("as expected")
"""


def test_the_package_temporal_is_through_time_and_the_function_stays_a_function():
    done = subprocess.run([sys.executable, "-c", OLD_PACKAGE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "as expected\n"), done.stderr


def test_compare_was_in_training():
    import spikedistill

    with pytest.warns(FutureWarning, match=r"use spikedistill\.compare; version 0\.3\.0 removes"):
        from spikedistill.training import compare
    assert compare is spikedistill.compare


def test_a_gradient_rule_took_its_segments_beside_its_name():
    from spikedistill import Rate
    from spikedistill.evaluation import GradientRule

    for old in (lambda: GradientRule("rate", 2), lambda: GradientRule("rate", segments=2, surrogate="arctan")):
        with pytest.warns(FutureWarning, match=r"use GradientRule\(Rate\(segments=2\)\)"):
            rule = old()
        assert rule.rule == Rate(segments=2)
    assert rule.name == "rate m=2 with arctan"
    assert GradientRule(Rate(segments=2), surrogate="arctan") == rule


def test_a_learned_decay_was_an_option_of_its_own():
    from spikedistill import LIF, create_model
    from spikedistill.recipes import recipe
    from spikedistill.recipes.settings import parse_config

    with pytest.warns(FutureWarning, match="use decay='learned'"):
        old = LIF(decay=0.8, learn_decay=True)
    assert str(old) == str(LIF(decay="learned:0.8"))
    assert old.decay_logit.sigmoid().item() == pytest.approx(0.8)
    with pytest.warns(FutureWarning, match="use decay='learned'"):
        model = create_model("convnet", num_classes=3, learn_decay=True)
    assert any(name.endswith("decay_logit") for name, _ in model.named_parameters())
    with pytest.warns(FutureWarning, match="use --model.lif.decay learned"):
        config = parse_config(recipe("digits-sce"), ["--model.lif.learn-decay"])
    assert config.model.lif.decay == "learned"

    with pytest.warns(FutureWarning, match="learn_decay=False .* use decay with a number"):
        assert str(LIF(decay=0.8, learn_decay=False)) == str(LIF(decay=0.8))
    with pytest.warns(FutureWarning, match="use --model.lif.decay with a number"):
        config = parse_config(recipe("digits-sce"), ["--model.lif.no-learn-decay"])
    assert config.model.lif.decay == recipe("digits-sce").model.lif.decay


def test_a_run_folder_read_its_results(tmp_path):
    from spikedistill.run_folder import RunFolder

    (tmp_path / "results.json").write_text('{"schema": 1}')
    with pytest.warns(FutureWarning, match=r"use spikedistill\.evaluation\.results\.read_results"):
        assert RunFolder(tmp_path).read_results() == {"schema": 1}
