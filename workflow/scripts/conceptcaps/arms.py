"""The arms: the ways of making captions that a run can compare, and what each is made from."""

TAGS, PAIRS = "tags", "pairs"  # sampled tag sets, or MusicCaps' own with their human captions
SOURCE = {  # arm -> the table whose rows it captions
    "conceptcaps": TAGS,  # the fine-tuned LLM: the dataset
    "base": TAGS,  # the LLM, not tuned
    "zero_shot": TAGS,  # the LLM, not tuned, not told the tags
    "musiccaps": PAIRS,  # human
    "lp_musiccaps_writing": PAIRS,  # LP-MusicCaps' four instructions (Doh et al. 2023)
    "lp_musiccaps_summary": PAIRS,
    "lp_musiccaps_paraphrase": PAIRS,
    "lp_musiccaps_attributes": PAIRS,
    "tag_concat": PAIRS,  # LP-MusicCaps' three baselines
    "template": PAIRS,
    "keyword_to_caption": PAIRS,
}
OWN = ("conceptcaps", "base", "zero_shot")  # asked with captioner.base's prompts
COLUMN = {  # arm -> its column in a file of LP-MusicCaps' own captions
    "lp_musiccaps_writing": "caption_writing",
    "lp_musiccaps_summary": "caption_summary",
    "lp_musiccaps_paraphrase": "caption_paraphrase",
    "lp_musiccaps_attributes": "caption_attribute_prediction",
}
OWN_CLIPS = "musiccaps"  # in `arms.recorded`: MusicCaps' clips, downloaded, not a folder
UNWRITTEN = ("musiccaps", "tag_concat", "template")  # no model writes them
SCORED_ANYWAY = UNWRITTEN  # text metrics have them as floors and ceilings in every run


def collected(*, brought: bool) -> tuple[str, ...]:
    """Return the arms whose captions are collected, not generated.

    Args:
        brought: LP-MusicCaps' own captions are brought in a file.
    """
    return (*UNWRITTEN, *COLUMN) if brought else UNWRITTEN


def generated(*, brought: bool) -> tuple[str, ...]:
    """Return the arms whose captions a language model writes."""
    return tuple(arm for arm in SOURCE if arm not in collected(brought=brought))
