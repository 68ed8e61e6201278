"""What a run is called: its data set, its method and what it changes, which people read as one text."""

from collections.abc import Iterable
from typing import Any


class RecipeName(str):
    """`<dataset>-<method>`, and behind commas what a variant changes: a text to read, and its parts as fields.

    Where a data set is called `my-data`, no text tells where its name ends. So the program makes names of their parts, and reads
    the parts.

    Args:
        dataset: the data set of the recipe.
        method: what is put into it; empty for a name of one's own, such as "demo".
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
        """The name that a text is, where nobody knows its parts: in an earlier record, or in a file of one's own.

        Args:
            text: the name.
            dataset: the data set that the run was trained on. Where the text begins with it, the method follows; elsewhere the
                method follows the first "-".
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
        """What is changed, value by setting, in the order in which they were given; a flag has the value ""."""
        pairs = (change.partition("=") for change in self.changes)
        return {setting: value for setting, _, value in pairs}

    def without(self, setting: str) -> "RecipeName":
        """The name without the changes of one setting."""
        return RecipeName(self.dataset, self.method, [c for c in self.changes if c.partition("=")[0] != setting])

    def with_change(self, change: str) -> "RecipeName":
        """The name with one change more."""
        return RecipeName(self.dataset, self.method, (*self.changes, change))

    def written(self, dataset: str) -> str | dict[str, Any]:
        """What a file holds: the text where `parse` finds the parts in it, else the parts."""
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
