"""An error of a campaign's caller, in one line."""


class RefusedError(Exception):
    """Its message names the field and what is allowed."""
