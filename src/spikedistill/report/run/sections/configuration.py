"""The settings of the run, and how to repeat it."""

from ...blocks import Code, Number, Numbers, Section, duration
from ..reading import Run


def cost_section(run: Run) -> Section | None:
    """What training took."""
    cost, numbers = run.results.cost, []
    if cost.training_s is not None:
        note = "without the first step of each process and the last scores"
        numbers.append(Number("training_s", cost.training_s, duration(cost.training_s), "training time, h:mm:ss", note))
    if cost.images_per_s is not None:
        numbers.append(
            Number("images_per_s", cost.images_per_s, f"{cost.images_per_s:,.0f}", "training samples per second")
        )
    if cost.peak_mib is not None:
        note = "of the accelerator, or of the whole process on a CPU"
        numbers.append(Number("peak_mib", cost.peak_mib, f"{cost.peak_mib:,.0f} MiB", "peak memory in training", note))
    return Section("cost", "Cost of training", [Numbers(numbers)]) if numbers else None


def configuration_section(run: Run) -> Section | None:
    """How to repeat the run; None for logits."""
    if not run.is_trained:
        return None
    what, command = "Command to repeat the run, in this folder", "spikedistill train config.yaml --out another/folder"
    if parts := run.config.get("from_python"):
        given = "\n".join(f"    {name}=...,  # {path}" for name, path in parts.items())
        what = "Python to repeat the run, in this folder"
        command = f'train(\n    Config.from_yaml(open("config.yaml").read()),\n{given}\n)'
    return Section(
        "configuration",
        "Configuration",
        [
            Code(what, command),
            Code("All settings (config.yaml)", run.config_text.strip()),
        ],
    )
