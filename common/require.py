"""Checks of what was read from files, each with its reason."""


def require(condition: bool, reason: str) -> None:
    """Raises ValueError with the reason, unless the condition holds."""
    if not condition:
        raise ValueError(reason)
