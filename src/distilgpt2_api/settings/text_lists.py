"""Settings that are lists of texts: separated by commas in a variable, or a list in the file."""


def parse_texts(value: object, rule: str) -> tuple[str, ...]:
    """The setting's texts; those between commas are stripped. Raises ValueError with `rule` for anything else."""
    if isinstance(value, str):
        return tuple(text for part in value.split(",") if (text := part.strip()))
    if isinstance(value, list | tuple) and all(isinstance(text, str) for text in value):
        return tuple(value)
    raise ValueError(rule)
