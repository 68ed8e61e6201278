"""What the run took, and how to do it again."""

import shlex

from ..blocks import Code, Number, Numbers, Section
from ..run import Run


def cost_section(run: Run) -> Section | None:
    """What training took."""
    cost, numbers = run.results.cost, []
    if cost.images_per_s is not None:
        numbers.append(
            Number("images_per_s", cost.images_per_s, f"{cost.images_per_s:,.0f}", "training samples per second")
        )
    if cost.peak_mib is not None:
        note = "of the accelerator, or of the whole process on a CPU"
        numbers.append(Number("peak_mib", cost.peak_mib, f"{cost.peak_mib:,.0f} MiB", "peak memory in training", note))
    return Section("cost", "Cost of training", [Numbers(numbers)]) if numbers else None


def configuration_section(run: Run) -> Section:
    """How to do it again."""
    recorded, text = run.config.get("command"), command(run)
    unless = "" if recorded else ", unless the settings below differ from the recipe's own"
    return Section(
        "configuration",
        "Configuration",
        [Code(f"Command to repeat the run{unless}", text), Code("All settings (config.yaml)", run.config_text.strip())],
    )


def command(run: Run) -> str:
    """The command line that repeats the run: what the configuration recorded, or its recipe with the common settings."""
    if run.config.get("command"):
        return str(run.config["command"])
    words = ["spikedistill", "train", str(run.config.get("recipe", run.results.recipe))]
    for name in ("seed", "epochs", "timesteps"):
        if name in run.config:
            words += [f"--{name}", str(run.config[name])]
    return shlex.join(words)
