"""What the caller of a campaign got wrong, in one line."""


class RefusedError(Exception):
    """Its message names the field and what is allowed."""
