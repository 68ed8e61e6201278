"""The name of a run: its data set, its method and its changed settings, shown as one text."""

from collections.abc import Iterable
from typing import Any


class RecipeName(str):
    """`<dataset>-<method>`, and after commas the settings that a variant changes: a text, with its parts as fields.

    A data set can be called `my-data`, so the text does not determine its parts. The program therefore keeps the parts.

    Args:
        dataset: the data set of the recipe.
        method: the name of the method; empty for a user's own name, such as "demo".
        changes: settings as the command line takes them without its dashes, such as "timesteps=2" or "trainer.no-progress".

    Attributes:
        dataset: as given.
        method: as given.
        changes: as given.
    """

    dataset: str
    method: str
    changes: tuple[str, ...]

    def __new__(cls, dataset: str, method: str = "", changes: Iterable[str] = ()) -> "RecipeName":
        changes = tuple(changes)
        name = super().__new__(cls, ",".join([f"{dataset}-{method}" if method else dataset, *changes]))
        name.dataset, name.method, name.changes = dataset, method, changes
        return name

    def __getnewargs__(self) -> tuple[Any, ...]:  # for pickle and copy
        return self.dataset, self.method, self.changes

    @classmethod
    def parse(cls, text: str, dataset: str = "") -> "RecipeName":
        """The name from a text whose parts are not known, such as in an earlier record or in a user's file.

        Args:
            text: the name.
            dataset: the data set that the run was trained on. If the text begins with it, the method follows; otherwise
                the method follows the first "-".
        """
        rest = text.removeprefix(f"{dataset}-") if dataset else text
        if rest not in ("", text) and not rest.startswith(","):
            method, *changes = rest.split(",")
            return cls(dataset, method, changes)
        name, *changes = text.split(",")
        first, _, method = name.partition("-")
        return cls(first, method, changes) if method else cls(name, "", changes)

    @property
    def base(self) -> "RecipeName":
        """The name without its changes."""
        return RecipeName(self.dataset, self.method)

    @property
    def variant(self) -> str:
        """The text without the data set."""
        return ",".join([self.method or self.dataset, *self.changes])

    @property
    def settings(self) -> dict[str, str]:
        """The values of changed settings by name, in the order in which they were given; a flag has the value ""."""
        pairs = (change.partition("=") for change in self.changes)
        return {setting: value for setting, _, value in pairs}

    def without(self, setting: str) -> "RecipeName":
        """The name without the changes of one setting."""
        return RecipeName(self.dataset, self.method, [c for c in self.changes if c.partition("=")[0] != setting])

    def with_change(self, change: str) -> "RecipeName":
        """The name with one more change."""
        return RecipeName(self.dataset, self.method, (*self.changes, change))

    def written(self, dataset: str) -> str | dict[str, Any]:
        """The value for a file: the text if `parse` finds the parts in it, else the parts."""
        parts = {"dataset": self.dataset, "method": self.method, "changes": list(self.changes)}
        found = RecipeName.parse(self, dataset)
        return str(self) if found.__getnewargs__() == self.__getnewargs__() else parts

    @classmethod
    def from_written(cls, value: Any, dataset: str) -> Any:
        """The name that `written` returned; any other value as it is."""
        if isinstance(value, str):
            return value if isinstance(value, cls) else cls.parse(value, dataset)
        if not isinstance(value, dict) or value.keys() != {"dataset", "method", "changes"}:
            return value
        texts = [
            value["dataset"],
            value["method"],
            *(value["changes"] if isinstance(value["changes"], list) else [None]),
        ]
        return cls(**value) if all(isinstance(text, str) for text in texts) else value
