import pytest

from conceptcaps.mentions import Mentions

TAGS = ["drums", "no drums", "guitar", "acoustic guitar", "hip hop", "slow", "happy", "piano"]
FIND = Mentions(TAGS, {"drums": ["percussion"], "happy": ["joyful"]}).find


@pytest.mark.parametrize(
    ("text", "named", "asserted", "denied"),
    [
        ("Drums and a PIANO.", {"drums", "piano"}, {"drums", "piano"}, set()),
        ("An acoustic  guitar", {"guitar", "acoustic guitar"}, {"acoustic guitar"}, set()),
        ("Acoustic guitar and a guitar", {"guitar", "acoustic guitar"}, None, set()),
        ("hip-hop pianos", {"hip hop", "piano"}, None, set()),
        ("slowly, drumsticks, unhappy", set(), set(), set()),
        ("heavy percussion, joyful", {"drums", "happy"}, None, set()),
        ("There are no drums.", {"no drums"}, {"no drums"}, {"drums"}),
        ("It lacks any drums", {"no drums"}, {"no drums"}, {"drums"}),
        (
            "made without percussion or piano",
            {"no drums"} - {"no drums"},
            set(),
            {"drums", "piano"},
        ),
        ("It isn't happy", set(), set(), {"happy"}),
        ("no piano, drums lead", {"drums"}, {"drums"}, {"piano"}),
        ("not only piano but drums", {"piano", "drums"}, None, set()),
        ("no drums at first, then drums", {"no drums", "drums"}, None, set()),
        ("", set(), set(), set()),
    ],
)
def test_what_a_text_says(text, named, asserted, denied):
    found = FIND(text)
    assert found.named == named
    assert found.asserted == (named if asserted is None else asserted)
    assert found.denied == denied
