"""What a synthetic participant says: one answer of 3 to 5 seconds per turn."""

from __future__ import annotations

ANSWERS = (
    "I work in a small town library, and I have been doing that for about nine years now.",
    "Well, mostly because a friend told me about it and I was curious how it works.",
    "Last week, for instance, the printer failed and we had to help everybody by hand.",
    "What mattered to me was that nobody left without an answer to their question.",
    "My colleagues were surprised at first, but then they found it rather funny.",
    "Next time I would ask for help earlier, and I would write things down.",
    "I would say twice a month, sometimes more often when the term begins.",
    "The hardest part was staying calm while the phone kept ringing all morning.",
    "I think it happened because the plan was made by people who are never here.",
    "Honestly, I just expect that somebody listens and tells me how long it takes.",
    "We still use a paper calendar, and a shared table for everything that is urgent.",
    "In the morning I open the doors, read the messages and look at the returns.",
    "My sister decides with me, because she knows the prices better than I do.",
    "I changed my mind after I had seen how much time the others were saving.",
    "If I could change one thing, it would be the opening hours on a Friday.",
    "Afterwards I was tired, but also a bit proud of what we had managed.",
)


def answer(turn: int, person: int) -> str:
    """The answer of participant number `person` at turn `turn`, both from 0."""
    return ANSWERS[(person * 5 + turn) % len(ANSWERS)]
