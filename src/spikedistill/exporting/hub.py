"""Bundles on the Hugging Face Hub, through the library `huggingface_hub` (extra `spikedistill[hub]`)."""

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelHubMixin, hf_hub_download

from ..errors import UserError
from ..evaluation import AnytimeClassifier
from ..run_folder import BUNDLE

_MODEL = "model.safetensors"


class HubClassifier(ModelHubMixin, library_name="spikedistill", tags=["spiking-neural-network", "early-exit"]):
    """An early-exit classifier that `save_pretrained`, `from_pretrained` and `push_to_hub` save and load.

    Nothing that is loaded is executed: the network is built by name.

    Attributes:
        classifier: the classifier, which calls go to.
    """

    def __init__(self, classifier: AnytimeClassifier) -> None:
        self.classifier = classifier

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.classifier(*args, **kwargs)

    def _save_pretrained(self, save_directory: Path) -> None:
        self.classifier.save(Path(save_directory) / _MODEL)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **others: Any,
    ) -> "HubClassifier":
        path = Path(model_id) / _MODEL
        if not path.is_file():
            found = hf_hub_download(
                model_id,
                _MODEL,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
            path = Path(str(found))
        return cls(AnytimeClassifier.load(path))


def from_hub(repo_id: str, *, revision: str | None = None, token: str | None = None) -> AnytimeClassifier:
    """The classifier of a repository on the Hub, or of a local bundle.

    Args:
        repo_id: such as "me/digits", or a folder.
        revision: a branch, tag or commit.
        token: of a private repository.

    Raises:
        UserError: for a damaged file, or one that does not say when samples stop.
    """
    path = Path(repo_id) / _MODEL
    return AnytimeClassifier.load(
        path if path.is_file() else hf_hub_download(repo_id, _MODEL, revision=revision, token=token)
    )


def push_to_hub(bundle: Path | str, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a bundle, with its card, to a repository on the Hub, which is made if it is missing.

    Args:
        bundle: the folder that `spikedistill export --format bundle` wrote.
        repo_id: such as "me/digits".
        private: whether a new repository is private.
        token: of the account; default the one that `hf auth login` stored.

    Returns:
        The address of the commit.

    Raises:
        UserError: for a folder that is no bundle.
    """
    folder = Path(bundle)
    if not (folder / BUNDLE).is_file() or not (folder / _MODEL).is_file():
        raise UserError(f"{folder} is no bundle: spikedistill export RUN --format bundle --out {folder} writes one")
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=repo_id, folder_path=folder))
