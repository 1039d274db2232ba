"""The taxonomy's categories, and the columns that hold their tags.

Needs nothing: Snakemake reads it where only Snakemake is installed.
"""

TAGS_OF = {  # taxonomy category -> column that holds its tags
    "genre": "genre_aspects",
    "mood": "mood_aspects",
    "instrument": "instrument_aspects",
    "tempo": "tempo_aspects",
}
CATEGORIES = tuple(TAGS_OF)
PRESENT_PROB_OF = {  # category -> column with the probabilities that its tags are heard, one a tag
    category: f"{category}_present_prob" for category in CATEGORIES
}
