"""Captions made of tags by rule: LP-MusicCaps' baselines without a model (Doh et al. 2023)."""


def tag_concat(tags: list[str]) -> str:
    """Return the tags, comma-separated."""
    return ", ".join(tags)


def template(tags: list[str]) -> str:
    """Return the tags behind LP-MusicCaps' fixed opening."""
    return f"the music is characterized by {', '.join(tags)}"


RULES = {"tag_concat": tag_concat, "template": template}  # arm -> its rule
