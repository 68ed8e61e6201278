"""One run of the code of TWKD's authors: `python -m benchmarks.authors_child JSON`, with the settings of `authors.run_one`.

Their modules are imported from the copy that the settings name. What they import and training does not use, such as plots and
progress bars, is replaced by empty modules. Of torchvision only its Python files are needed; where its compiled part does not fit
PyTorch, its package is entered without the file that loads that part.
"""

import importlib
import importlib.machinery
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from spikedistill import load
from spikedistill.data import load_dataset, training_indices

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # that their test images are normalised with
UNUSED = ("matplotlib.pyplot", "seaborn", "sklearn.manifold", "progress.bar", "torch.utils.tensorboard")


class Nothing:
    """Stands for anything that is called and not used."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return 0 if name.endswith("_td") else Nothing()

    def __call__(self, *_: Any, **__: Any) -> None: ...


class Teacher(nn.Module):
    """Our ANN as their teacher: it gets images that are normalised already."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.network = load(run)
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network((x * self.std + self.mean).clamp(0, 1), timesteps=1)[0]
        return logits


def enter_torchvision(folder: Path) -> None:
    """Make `torchvision.datasets` and `torchvision.transforms` importable beside any build of PyTorch."""
    if not (folder / "torchvision" / "transforms").is_dir():
        sys.exit(f"{folder} holds no torchvision: pip install --no-deps --target {folder} torchvision")
    package = types.ModuleType("torchvision")
    package.__path__ = [str(folder / "torchvision")]
    package.__spec__ = importlib.machinery.ModuleSpec("torchvision", None, is_package=True)
    package.disable_beta_transforms_warning = Nothing()  # type: ignore[attr-defined]
    sys.modules["torchvision"] = package


def without_what_is_unused() -> None:
    """Empty modules for what their files import, a training step does not use, and is not installed."""
    for path in UNUSED:
        try:
            importlib.import_module(path)
        except ImportError:
            for name in (path.partition(".")[0], path):
                module = sys.modules.setdefault(name, types.ModuleType(name))
                for attribute in ("cm", "pyplot", "TSNE", "Bar", "SummaryWriter"):
                    setattr(module, attribute, Nothing)


def narrow(file: Path, by: int) -> None:
    """Import their `model.resnet` with all channels divided."""
    source = re.sub(r"\b(64|128|256|512)\b", lambda found: str(int(found[0]) // by), file.read_text())
    module = types.ModuleType("model.resnet")
    sys.modules["model.resnet"] = module
    exec(compile(source, str(file), "exec"), module.__dict__)


def main(settings: dict[str, Any]) -> None:
    """Train, and write which test images are right after each k."""
    reference, seed, T = Path(settings["reference"]), settings["seed"], settings["timesteps"]
    sys.path.insert(0, settings["libraries"])
    enter_torchvision(Path(settings["libraries"]))
    without_what_is_unused()
    sys.path[:0] = [str(reference), str(reference / "experiment" / "cifar")]
    sys.argv = [sys.argv[0]]  # theirs reads it
    package = types.ModuleType("model")
    package.__path__ = [str(reference / "model")]
    sys.modules["model"] = package
    narrow(reference / "model" / "resnet.py", 4)
    package.resnet18 = sys.modules["model.resnet"].resnet18  # type: ignore[attr-defined]

    import main as theirs  # type: ignore[import-not-found]
    from config.config import args  # type: ignore[import-not-found]
    from spikingjelly.activation_based import functional
    from torchvision import datasets  # type: ignore[import-not-found]
    from util import bptt_model_setting, setup_seed, split_params, warp_decay  # type: ignore[import-not-found]
    from util import load_dataset as their_dataset

    datasets.CIFAR10._check_integrity = lambda _: True  # the files may have been packed anew
    datasets.CIFAR10._load_meta = lambda _: None
    setup_seed(seed)
    args.T, args.alpha, args.beta, args.num_epoch = T, 0.2, 0.5, settings["epochs"]
    train_set, test_set, classes = their_dataset("CIFAR10", settings["root"], cutout=True, auto_aug=True)
    own = load_dataset("cifar10", root=Path(settings["root"]))
    kept, _ = training_indices(own.train.targets, 0.0, settings["samples"])
    batches = DataLoader(Subset(train_set, kept.tolist()), args.train_batch_size, shuffle=True)
    neurons = {"v_reset": args.v_reset, "thresh": args.thresh, "decay": warp_decay(args.decay)}
    student = package.resnet18(num_classes=classes, **neurons, detach_reset=args.detach_reset)
    bptt_model_setting(student, time_step=T, step_mode="m")
    _, decayed, free = split_params(student)
    groups = [{"params": decayed, "weight_decay": args.wd}, {"params": free, "weight_decay": 0}]
    optimizer = torch.optim.SGD(groups, lr=args.lr, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.num_epoch)
    teacher, loss = Teacher(settings["teacher"]), nn.CrossEntropyLoss()
    for epoch in range(1, args.num_epoch + 1):
        accuracy, mean_loss = theirs.train(batches, optimizer, student, teacher, loss, args)
        schedule.step()
        print(
            f"authors, seed {seed}, epoch {epoch}/{args.num_epoch}: loss {mean_loss:.3f}, {accuracy:.2f} %", flush=True
        )
    student.eval()
    right = []
    with torch.no_grad():
        for images, labels in DataLoader(test_set, 250):
            functional.reset_net(student)
            logits = student(images.repeat(T, 1, 1, 1))
            prefix = logits.cumsum(0)  # of the mean, but for its factor
            right.append((prefix.argmax(-1) == labels).numpy())
    np.savez(settings["out"], right=np.concatenate(right, 1), about=settings["about"])


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
