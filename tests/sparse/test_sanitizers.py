"""The functions in C++ step over no memory and overflow no number, on hundreds of shapes; and they compile for other processors."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from spikedistill import native, sparse
from spikedistill.native import build

HERE = Path(__file__).parent
KERNELS = Path(sparse.__file__).with_name("kernels.cpp")
HEADERS = f"-I{Path(native.__file__).parent}"
BEST = torch.backends.cpu.get_cpu_capability()
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")


@needs_compiler
@pytest.mark.parametrize(
    ("instructions", "units", "shapes"),
    [pytest.param(BEST, 2, 200, id=f"{BEST}"), pytest.param("DEFAULT", 1, 60, id="plain")],
)
def test_no_shape_steps_over_memory(instructions, units, shapes, tmp_path):
    program = tmp_path / "shapes"
    macros = [f'-DKERNELS="{KERNELS}"', "-DVALUE=float", f"-DUNITS={units}"]
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g0", "-fopenmp", "-w"]
    flags = [*build.FLAGS[:1], *build.FLAGS[2:], *build._INSTRUCTIONS.get(instructions, []), HEADERS]
    command = ["c++", *flags, *checks, *macros, str(HERE / "shapes.cpp"), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    if "cannot find" in built.stderr and "san" in built.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert built.returncode == 0, built.stderr[:2000]
    ran = subprocess.run([program, str(shapes)], capture_output=True, text=True, env={"OMP_NUM_THREADS": "2"})
    assert (ran.returncode, ran.stdout) == (0, f"0 of {shapes} shapes differ\n"), ran.stderr[:2000]


@pytest.mark.parametrize("compiler", ["aarch64-linux-gnu-g++"])
@pytest.mark.parametrize("value", ["float", "BFloat16"])
def test_other_processors(compiler, value, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    command = [compiler, *build.FLAGS, HEADERS, f"-DVALUE={value}", "-DUNITS=1", "-fopenmp", "-S", str(KERNELS)]
    assembly = tmp_path / "kernels.s"
    done = subprocess.run([*command, "-o", str(assembly)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]
    assert re.search(r"fadd\s+v\d+\.4s", assembly.read_text())  # four sums at a time
