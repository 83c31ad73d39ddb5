"""Launch files written for a test, and what is read of them."""

from budget.launch import read


def written(folder, name, text):
    path = folder / name
    path.write_text(text)
    return str(path)


def read_as(told, path):
    """Assert that a file says what `told` has: the form, the model, the layout, what is left, settings."""
    form, model, layout, left, settings = told
    run = read(path)
    assert (run.form, run.model, run.layout, run.left) == (form, model, layout, left)
    assert settings.items() <= run.settings.items()
