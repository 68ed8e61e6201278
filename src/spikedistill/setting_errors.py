"""What was wrong with the values of settings, in plain words."""

from pydantic import ValidationError

# The settings that are mappings from names to values.
_BY_NAME = (("options",), ("neuron_options",))


def explain(error: Exception, place: str = "") -> str:
    """What was wrong with a configuration, in one line; settings are named from `place` on."""
    if not isinstance(error, ValidationError):
        return str(error).splitlines()[0]
    expected: dict[str, list[str]] = {}
    for item in error.errors():
        # the path of an error is the name of the setting, then the type that refused the value
        name = place + ".".join(map(str, item["loc"][: 2 if item["loc"][:1] in _BY_NAME else 1]))
        if item["type"] == "value_error":  # raised by a section, whose message names the settings
            expected[str(item["ctx"]["error"])] = []
        elif item["type"] == "missing":
            expected[f"{name} is missing"] = []
        else:
            value = repr(item["input"])
            came = f"{name}: got {value if len(value) <= 80 else f'{value[:77]}...'}, "
            expected.setdefault(came, []).append(_in_plain_words(item["msg"]))
    return "; ".join(came + _any_of(kinds) for came, kinds in expected.items())


_PLAIN = {
    "Extra inputs are not permitted": "there is no such setting",
    "Input should be ": "expected ",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a text",
    "a valid boolean": "true or false",
    "a valid tuple": "several",
}


def _in_plain_words(message: str) -> str:
    said = message.partition(", unable to parse")[0].partition(", got a number")[0]
    for words, plain in _PLAIN.items():
        said = said.replace(words, plain)
    return said


def _any_of(kinds: list[str]) -> str:
    """What a setting takes, for all its types; for a number that is not finite, only that it must be finite."""
    return " or ".join(dict.fromkeys([kind for kind in kinds if "finite" in kind] or kinds)).replace(
        " or expected", " or"
    )
