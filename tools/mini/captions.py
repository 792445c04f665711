"""Turns a scene into a caption, in several phrasings (or the plainest one)."""

from __future__ import annotations

import random

from scenes import Background, Scene, Thing
from words import INVERSE, NUMBERS, PLACES

# Each word with the words that may stand for it, as often as they are listed.
SYNONYMS = {
    "circle": ["circle"] * 5 + ["disk"],
    "ring": ["ring"] * 4 + ["donut"],
    "moon": ["moon"] * 3 + ["crescent"],
    "cross": ["cross"] * 3 + ["plus sign"],
    "cyan": ["cyan"] * 4 + ["turquoise"],
    "purple": ["purple"] * 6 + ["violet"],
    "small": ["small"] * 4 + ["tiny"],
    "large": ["large", "large", "big"],
    "glossy": ["glossy", "shiny"],
    "gray": ["gray", "grey"],
}
RELATION_PHRASES = {
    "left of": ["left of", "to the left of"],
    "right of": ["right of", "to the right of"],
    "above": ["above", "above", "above", "over", "on top of"],
    "below": ["below", "below", "below", "under", "beneath"],
    "inside": ["inside", "inside", "within", "in"],
}
SIDES = {
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}
PLACE_PHRASES = {
    "top": ["at the top"],
    "bottom": ["at the bottom"],
    "left": ["on the left"],
    "right": ["on the right"],
    "center": ["in the center", "in the middle"],
} | {p: [f"in the {p} corner", f"in the {p}"] for p in PLACES if " " in p}
JOINERS = ["and"] * 6 + ["next to", "beside"]
OPENINGS = ["a picture of ", "a drawing of ", "there is "]


class Speaker:
    """Phrases scenes. `plain` always takes the first phrasing and no synonyms; otherwise the rng chooses."""

    def __init__(self, rng: random.Random, plain: bool = False):
        self._rng = rng
        self._plain = plain

    def caption(self, scene: Scene) -> str:
        """The caption of a scene."""
        text = {
            "one": self._one,
            "two": self._two,
            "and": self._and,
            "count": self._count,
            "row": self._row,
        }[scene.kind](scene)
        if scene.background.mentioned:
            text = self._with_background(text, scene.background)
        return self._rng.choice(OPENINGS) + text if self._happens(0.08) else text

    def _happens(self, share: float) -> bool:
        return not self._plain and self._rng.random() < share

    def _choose(self, phrases: list[str]) -> str:
        return phrases[0] if self._plain else self._rng.choice(phrases)

    def _word(self, word: str) -> str:
        return self._choose(SYNONYMS.get(word, [word]))

    def _noun(self, thing: Thing) -> str:
        words = [thing.size, thing.style, thing.colour, thing.shape]
        return " ".join(self._word(w) for w in words if w)

    def _a(self, phrase: str) -> str:
        """With its article; now and then without."""
        return phrase if self._happens(0.08) else with_article(phrase)

    def _one(self, scene: Scene) -> str:
        text = self._a(self._noun(scene.things[0]))
        return f"{text} {self._choose(PLACE_PHRASES[scene.place])}" if scene.place else text

    def _two(self, scene: Scene) -> str:
        (first, second), relation = scene.things, scene.relation
        if relation in INVERSE and self._happens(0.35):
            first, second, relation = second, first, INVERSE[relation]
        a, b = self._a(self._noun(first)), self._a(self._noun(second))
        if relation in SIDES and self._happens(0.12):
            return f"{a} {SIDES[relation][0]} and {b} {SIDES[relation][1]}"
        return f"{a} {self._choose(RELATION_PHRASES[relation])} {b}"

    def _and(self, scene: Scene) -> str:
        a, b = (self._a(self._noun(t)) for t in scene.things)
        return f"{a} {self._choose(JOINERS)} {b}"

    def _count(self, scene: Scene) -> str:
        count = len(scene.things)
        number = str(count) if self._happens(0.2) else NUMBERS[count]
        text = f"{number} {plural(self._noun(scene.things[0]))}"
        return f"{text} in a row" if scene.in_row and self._happens(0.5) else text

    def _row(self, scene: Scene) -> str:
        a, b, c = (self._a(self._noun(t)) for t in scene.things)
        return f"{a}, {b} and {c}"

    def _with_background(self, text: str, background: Background) -> str:
        words = self._choose(self._background(background))
        place = 0 if self._plain else self._rng.random()
        if place < 0.66:
            return f"{text} on {words if words.endswith('stripes') else with_article(words)}"
        return f"{text}, {words}" if place < 0.9 else f"{words}, {text}"

    def _background(self, background: Background) -> list[str]:
        """All phrasings of a background, the plainest first."""
        a = self._word(background.first)
        if background.kind == "plain":
            return [f"{a} background"]
        b = self._word(background.second)
        if background.kind == "gradient":
            return [f"{a} to {b} gradient", f"gradient from {a} to {b}", f"{a} to {b} gradient background"]
        if background.kind == "stripes":
            direction = "vertical" if background.vertical else "horizontal"
            return [f"{a} and {b} {direction} stripes"] * 2 + [f"striped {a} and {b} background"]
        if background.kind == "checker":
            return [f"{a} and {b} checkerboard"]
        return [f"{a} background with {b} dots", f"{a} background with {b} polka dots"]


def with_article(phrase: str) -> str:
    """'a' or 'an' before the phrase."""
    return ("an " if phrase[0] in "aeio" else "a ") + phrase


def plural(noun: str) -> str:
    """The plural of a noun of ours."""
    return noun + ("es" if noun.endswith("s") else "s")
