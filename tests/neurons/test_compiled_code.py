"""Compiled loops on disk: what one process compiled the next one loads, and what is of no use there is compiled anew."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spikedistill.neurons import compiler
from spikedistill.neurons.compiled_code import kind_of

pytestmark = pytest.mark.skipif(not compiler.compiler_works(), reason="torch.compile needs a C++ compiler")

SCRIPT = """
import sys, torch, warnings
from spikedistill.neurons import compiler, fused, lif
from spikedistill.neurons.surrogate import arctan

warnings.simplefilter("error")  # as strict users have it: the compiler's own parts warn

how, what = sys.argv[1:]
if how == "load":
    torch.compile = None  # who compiles anew fails
compiler.MIN_ELEMENTS = 0
compiler._cpu_kernels = lambda: None
torch.manual_seed(0)
surrogate = {"by name": "arctan", "own": lambda x: arctan(x)}[what]
for samples in (2, 3):
    x = torch.randn(3, samples, 4, 5, requires_grad=True)
    spikes = lif(x, surrogate=surrogate)
    spikes.square().sum().backward()
    print(spikes.sum().item(), x.grad.double().sum().item(), x.grad.double().square().sum().item())
assert [len(versions) for versions in compiler.compiled(fused._fire).versions.values()] == [1]
"""


def run(cache: Path, how: str = "compile", what: str = "by name") -> str:
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how, what], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def kept(cache: Path) -> dict[str, int]:
    return {path.name.partition("-")[0]: path.stat().st_mtime_ns for path in (cache / "spikedistill").iterdir()}


def test_the_next_process_loads_what_the_first_compiled_and_what_is_damaged_or_gone_is_compiled_anew(tmp_path):
    first = run(tmp_path)
    before = kept(tmp_path)
    assert before.keys() == {"fire", "gradient_of_block"}
    assert run(tmp_path, "load") == first
    assert kept(tmp_path) == before
    for path in (tmp_path / "spikedistill").iterdir():
        if path.name.startswith("fire"):
            path.write_bytes(path.read_bytes()[:1000])
        else:
            path.unlink()
    assert run(tmp_path) == first
    assert run(tmp_path, "load") == first


def test_a_surrogate_of_ones_own_may_change_unseen_and_is_not_kept(tmp_path):
    assert run(tmp_path, what="own") == run(tmp_path, what="own")
    assert kept(tmp_path).keys() == {"fire"}, "which knows no surrogate"


def test_code_is_for_numbers_of_timesteps_and_options_but_for_every_size():
    x = torch.zeros(4, 6, 5)
    kind = kind_of((x, 0.5, None, (torch.zeros(6, 1),)))
    assert kind == kind_of((x.new_zeros(4, 60, 7), 0.5, None, (torch.zeros(60, 1),)))
    for other in (
        (x[:3], 0.5, None, (torch.zeros(6, 1),)),
        (x, 0.25, None, (torch.zeros(6, 1),)),
        (x, 0.5, 0.0, (torch.zeros(6, 1),)),
        (x.bfloat16(), 0.5, None, (torch.zeros(6, 1),)),
        (x[:, :1], 0.5, None, (torch.zeros(1, 1),)),
        (x.transpose(1, 2), 0.5, None, (torch.zeros(6, 1),)),
    ):
        assert kind_of(other) != kind
