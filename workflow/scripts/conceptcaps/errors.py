"""Errors meant for the user: one message that says what is wrong, where, and what to do."""


class InputError(ValueError):
    """Bad input of any kind (file, row, key, model). Printed without a traceback."""


def nearest(name: str, known) -> str:
    """Return ' Did you mean X?' for the known name closest to `name`, or ''."""
    import difflib

    match = difflib.get_close_matches(name, [str(k) for k in known], n=1, cutoff=0.5)
    return f" Did you mean '{match[0]}'?" if match else ""
