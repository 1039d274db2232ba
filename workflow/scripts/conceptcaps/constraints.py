"""What a tag set must satisfy to belong to the dataset, and which constraint it broke."""

from collections.abc import Iterable

import numpy as np

from conceptcaps.categories import CATEGORIES
from conceptcaps.errors import InputError, nearest
from conceptcaps.taxonomy import vocabulary

FINE = 0  # the verdict on a set that breaks nothing; every other one indexes REASONS
REASONS = (
    "",
    "without a given tag (tags.given)",
    "with a forbidden tag (tags.forbid)",
    "tags that exclude each other (the taxonomy's 'exclusive')",
    "an implied tag is missing (the taxonomy's 'implies')",
    "too few categories (tags.min_categories)",
    "too many tags (tags.max_tags)",
)
CONTRADICTION, UNIMPLIED = 3, 4


class Constraints:
    """The taxonomy's logic, the limits of the config, and the tags that are given or forbidden.

    Args:
        taxonomy: {category: [tag]}.
        groups: no set holds two tags of one group (`taxonomy.load_exclusive`).
        implications: {tag: tags that every set with it holds, too} (`load_implications`).
        min_categories: of 4, that a set has tags from.
        max_tags: of a set.
        given: tags that every set holds; what they imply is given with them.
        forbid: tags that no set holds; what implies one of them is forbidden with it.

    Raises:
        InputError: an unknown tag (its nearest is named); given tags that exclude each other, or
            that are forbidden; more given tags than `max_tags`; too few categories left.
    """

    def __init__(
        self,
        taxonomy: dict[str, list[str]],
        *,
        groups: list[list[str]],
        implications: dict[str, list[str]],
        min_categories: int,
        max_tags: int,
        given: Iterable[str] = (),
        forbid: Iterable[str] = (),
    ):
        """Check the request against itself; see the class for the arguments."""
        self.tags = vocabulary(taxonomy)
        self.min_categories, self.max_tags = min_categories, max_tags
        self._index = {tag: d for d, tag in enumerate(self.tags)}
        self._sizes = np.cumsum([0, *(len(taxonomy[category]) for category in CATEGORIES)])[:-1]
        self._groups = np.zeros((len(groups), len(self.tags)), np.float32)
        for row, group in zip(self._groups, groups, strict=True):
            row[[self._index[tag] for tag in group]] = 1
        self._implied = _transitive(implications, self.tags)
        pairs = [(tag, other) for tag, implied in self._implied.items() for other in implied]
        self._if = np.array([self._index[tag] for tag, _ in pairs], dtype=int)
        self._then = np.array([self._index[other] for _, other in pairs], dtype=int)
        self.given = self.closed(self._known(given, "given"))
        self.forbid = self._known(forbid, "forbid")
        self.forbid |= {tag for tag, implied in self._implied.items() if implied & self.forbid}
        self._check_request(taxonomy, groups)

    def closed(self, tags: Iterable[str]) -> set[str]:
        """Return the tags with everything that they imply."""
        return set().union(*({tag} | self._implied.get(tag, set()) for tag in tags))

    def columns(self, tags: Iterable[str]) -> np.ndarray:
        """Return the places of tags in the vocabulary, ascending."""
        return np.array(sorted(self._index[tag] for tag in tags), dtype=int)

    def impossible(self, tag: str) -> str | None:
        """Return why no set can hold `tag` beside the given ones; None if one can."""
        wanted = self.closed([tag]) | self.given
        row = np.zeros((1, len(self.tags)), bool)
        row[0, self.columns(wanted)] = True
        if wanted & self.forbid:
            return REASONS[2]
        return REASONS[CONTRADICTION] if self.contradicts(row)[0] else None

    def contradicts(self, x: np.ndarray) -> np.ndarray:
        """Tell which sets, bool [N, D], hold two tags of one exclusive group: bool [N]."""
        if not len(self._groups):
            return np.zeros(len(x), bool)
        return (x.astype(np.float32) @ self._groups.T > 1.5).any(1)

    def unimplied(self, x: np.ndarray) -> np.ndarray:
        """Tell which sets, bool [N, D], lack a tag that another of theirs implies: bool [N]."""
        return (x[:, self._if] & ~x[:, self._then]).any(1)

    def n_categories(self, x: np.ndarray) -> np.ndarray:
        """Count the categories that sets, bool [N, D], have tags from: int [N]."""
        return np.logical_or.reduceat(x, self._sizes, axis=1).sum(1)

    def verdict(self, x: np.ndarray) -> np.ndarray:
        """Return for each set, bool [N, D], the first constraint that it breaks: an index [N].

        `FINE` for a set that breaks none; the others are places in `REASONS`.
        """
        broken = [
            ~x[:, self.columns(self.given)].all(1),
            x[:, self.columns(self.forbid)].any(1),
            self.contradicts(x),
            self.unimplied(x),
            self.n_categories(x) < self.min_categories,
            x.sum(1) > self.max_tags,
        ]
        return np.select(broken, range(1, len(REASONS)), FINE)

    def _known(self, tags: Iterable[str], key: str) -> set[str]:
        for tag in tags:
            if tag not in self._index:
                raise InputError(
                    f"tags.{key}: '{tag}' is no tag of the taxonomy.{nearest(tag, self.tags)}"
                )
        return set(tags)

    def _check_request(self, taxonomy: dict, groups: list[list[str]]) -> None:
        for group in groups:
            clash = [tag for tag in group if tag in self.given]
            if len(clash) > 1:
                raise InputError(
                    f"tags.given: '{clash[0]}' and '{clash[1]}' exclude each other; give one of "
                    "them, or change the taxonomy's 'exclusive'."
                )
        if both := sorted(self.given & self.forbid):
            raise InputError(
                f"tags.given: '{both[0]}' is given, or implied by a given tag, and forbidden by "
                "tags.forbid. Take it out of one of them."
            )
        if len(self.given) > self.max_tags:
            raise InputError(
                f"tags.given: {len(self.given)} tags are given, with those they imply, but "
                f"tags.max_tags is {self.max_tags}."
            )
        left = sum(bool(set(tags) - self.forbid) for tags in taxonomy.values())
        if left < self.min_categories:
            raise InputError(
                f"tags.forbid: leaves tags in {left} categories, but tags.min_categories is "
                f"{self.min_categories}."
            )


def _transitive(implications: dict[str, list[str]], tags: list[str]) -> dict[str, set[str]]:
    """Return {tag: everything that it implies, directly or through others}."""
    closed = {}
    for tag in tags:
        found, pending = set(), list(implications.get(tag, ()))
        while pending:
            implied = pending.pop()
            if implied not in found:
                found.add(implied)
                pending.extend(implications.get(implied, ()))
        if found - {tag}:
            closed[tag] = found - {tag}
    return closed
