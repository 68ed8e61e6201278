"""ONNX: a step with an explicit state, a whole sequence of fixed T, or a step with weights and inputs in 8 bits."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .description import INPUT, KEY, LOGITS, Description
from .flat import FlatStep
from .graph import exported, needed, quietly
from .verify import Runner

OPSET = 18


def onnx_of(module: nn.Module, inputs: Sequence[Tensor], description: Description) -> bytes:
    """The ONNX file of a `FlatStep` or a `WholeSequence`, of opset 18 and for any batch size.

    Args:
        module: what is exported.
        inputs: examples, of at least 2 samples.
        description: what the file says of itself, in its metadata.

    Raises:
        UserError: if onnx is not installed, or PyTorch cannot express the network.
    """
    needed("onnx", "onnx", "onnxscript")
    batch = torch.export.Dim("batch")
    axis = 1 if description.form == "sequence" and description.input.kind == "events" else 0
    state = [each.before for each in description.state]
    with quietly():
        program = torch.onnx.export(
            exported(module, inputs, [{axis: batch}, *({0: batch} for _ in state)]),
            input_names=[INPUT, *state],
            output_names=[LOGITS, *(each.after for each in description.state)],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[KEY] = description.text()
    content: bytes = program.model_proto.SerializeToString()
    return content


def runner(content: bytes | Path, description: Description) -> Runner:
    """An ONNX step in ONNX Runtime, on one thread.

    Raises:
        UserError: if onnxruntime is not installed.
    """
    session = _session(content)
    names = [INPUT, *(each.before for each in description.state)]

    def run(x: Tensor, state: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        given = zip(names, (x, *state), strict=True)
        logits, *after = session.run(None, {name: value.contiguous().numpy() for name, value in given})
        return torch.from_numpy(logits), [torch.from_numpy(each) for each in after]

    return run


def _session(content: bytes | Path) -> Any:
    needed("onnx", "onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    given = content if isinstance(content, bytes) else str(content)
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def in_eight_bits(content: bytes, description: Description, step: FlatStep, frames: Sequence[Tensor]) -> bytes:
    """The same step with weights and inputs of its layers in 8 bits, whose ranges are those of these samples.

    Spikes are 0 and 1, which 8 bits hold exactly. Currents, membranes and logits stay float32.

    Args:
        content: the ONNX file in float32.
        description: of it.
        step: the network.
        frames: the inputs `[N, ...]` of T timesteps.
    """
    needed("onnx", "onnx", "onnxruntime")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Steps(CalibrationDataReader):
        def __init__(self) -> None:
            self.steps = self._steps()

        def _steps(self) -> Iterator[dict[str, Any]]:
            state = step.initial(len(frames[0]))
            names = [INPUT, *(each.before for each in description.state)]
            for frame in frames:
                given = (frame, *state)
                yield {name: value.contiguous().numpy() for name, value in zip(names, given, strict=True)}
                with torch.no_grad():
                    state = list(step(frame, *state)[1:])

        def get_next(self) -> dict[str, Any] | None:
            return next(self.steps, None)

    with tempfile.TemporaryDirectory() as folder, quietly():
        given, made = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        given.write_bytes(content)
        quantize_static(
            given,
            made,
            Steps(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": ["Conv", "Gemm", "MatMul"]},
        )
        return made.read_bytes()
