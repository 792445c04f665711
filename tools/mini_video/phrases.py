"""Turns a clip into a caption, in several phrasings (or the plainest one)."""

from __future__ import annotations

import random

from world import Clip

SYNONYMS = {
    "circle": ["circle"] * 4 + ["ball", "disk"],
    "cross": ["cross"] * 3 + ["plus sign"],
    "purple": ["purple"] * 5 + ["violet"],
    "gray": ["gray", "grey"],
    "slowly": ["slowly", "slowly", "slow"],
    "quickly": ["quickly", "quickly", "fast"],
}
MOVES = [("moves", "moving")] * 4 + [("slides", "sliding"), ("glides", "gliding"), ("travels", "travelling")]
WAYS = {
    "right": ["right", "right", "to the right", "from left to right", "rightwards"],
    "left": ["left", "left", "to the left", "from right to left", "leftwards"],
    "up": ["up", "up", "upwards", "from bottom to top", "to the top"],
    "down": ["down", "down", "downwards", "from top to bottom", "to the bottom"],
}
WALLS = {
    "right": ["the right wall", "the right side", "the right edge"],
    "left": ["the left wall", "the left side", "the left edge"],
    "up": ["the ceiling", "the top", "the top wall"],
    "down": ["the floor", "the floor", "the ground", "the bottom"],
}
STATES = {
    "appear": [("appears", "appearing")] * 3 + [("shows up", "showing up"), ("pops up", "popping up")],
    "disappear": [("disappears", "disappearing")] * 3 + [("vanishes", "vanishing")],
    "still": [("stands still", "standing still"), ("does not move", "not moving"), ("stays still", "staying still")],
}
OPENINGS = ["a video of ", "a clip of "]


class Narrator:
    """Phrases clips. `plain` always takes the first phrasing and no synonyms; otherwise the rng chooses."""

    def __init__(self, rng: random.Random, plain: bool = False):
        self._rng, self._plain = rng, plain

    def caption(self, clip: Clip) -> str:
        """The caption of a clip."""
        opened = self._happens(0.12)
        deed = self._deed(clip, 1 if opened or self._happens(0.15) else 0)
        noun = f"{self._word(clip.colour)} {self._word(clip.shape)}"
        noun = noun if self._happens(0.06) else _with_article(noun)
        text = f"{noun} {deed}".strip()
        text = self._rng.choice(OPENINGS) + text if opened else text
        if not clip.background_told:
            return text
        ground = f"{self._word(clip.background)} background"
        return f"{text}, {ground}" if self._happens(0.2) else f"{text} on {_with_article(ground)}"

    def _happens(self, share: float) -> bool:
        return not self._plain and self._rng.random() < share

    def _choose(self, phrases: list):
        return phrases[0] if self._plain else self._rng.choice(phrases)

    def _word(self, word: str) -> str:
        return self._choose(SYNONYMS.get(word, [word]))

    def _deed(self, clip: Clip, form: int) -> str:
        """What happens; form 0: 'moves right', form 1: 'moving right'."""
        if clip.kind == "move":
            return self._moves(clip, form)
        way = clip.motion.split()[-1]
        if clip.kind == "bounce":
            verb = ("bounces", "bouncing")[form]
            if way == "down" and self._happens(0.3):
                return verb
            return f"{verb} {self._choose(['off', 'off', 'from'])} {self._choose(WALLS[way])}"
        # An object of which nothing is said stands still.
        return "" if clip.kind == "still" and self._happens(0.3) else self._choose(STATES[clip.kind])[form]

    def _moves(self, clip: Clip, form: int) -> str:
        verb, way = self._choose(MOVES)[form], self._choose(WAYS[clip.motion.split()[1]])
        if not clip.speed:
            return f"{verb} {way}"
        speed = self._word(clip.speed)
        if speed == clip.speed and self._happens(0.2):
            return f"{speed} {verb} {way}"
        return self._choose([f"{verb} {way} {speed}", f"{verb} {speed} {way}"])


def _with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeio" else "a ") + phrase
