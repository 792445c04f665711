"""Tests of the tool: python3 -m unittest mini_test (seconds on one core)."""

from __future__ import annotations

import random
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

from captions import Speaker
from check import TestSet, is_correct
from drawing import pack, render
from nets import pack_latents, unpack_latents
from scenes import Scene, Wish, is_held_out, sample
from text import IGNORE, ROLES, TEXT_LENGTH, THING_FIELDS, Tokenizers, labels
from vocab import write_vocabularies
from words import pair_is_held_out


def draw(scene: Scene) -> np.ndarray:
    """The scene as bytes."""
    things, background = (torch.from_numpy(x)[None] for x in pack(scene))
    return (render(things, background)[0] * 255).round().byte().permute(1, 2, 0).numpy()


class Scenes(unittest.TestCase):
    def test_training_never_shows_held_out_combinations(self):
        rng = random.Random(3)
        for _ in range(3000):
            self.assertFalse(is_held_out(sample(rng)))

    def test_a_held_out_wish_is_refused(self):
        rng = random.Random(3)
        pair = next((c, s) for c in ("red", "blue") for s in ("circle", "star", "moon") if pair_is_held_out(c, s))
        self.assertIsNone(sample(rng, Wish("one", [pair])))
        self.assertIsNotNone(sample(rng, Wish("one", [pair], held_out_allowed=True)))

    def test_scenes_survive_json(self):
        scene = sample(random.Random(4), Wish("two"))
        self.assertEqual(scene, Scene.from_dict(scene.to_dict()))

    def test_new_categories_hold_only_new_combinations(self):
        for category, scene, _ in TestSet(10).items:
            if "new" in category:
                self.assertTrue(is_held_out(scene), category)
            if "seen" in category:
                self.assertFalse(is_held_out(scene), category)


class Checker(unittest.TestCase):
    def test_truth_passes_and_another_relation_fails(self):
        for _, scene, caption in TestSet(3).items:
            picture = draw(scene)
            self.assertTrue(is_correct(picture, scene), caption)
            if scene.relation in ("left of", "above"):
                scene.relation = {"left of": "right of", "above": "below"}[scene.relation]
                self.assertFalse(is_correct(picture, scene), caption)

    def test_swapped_colours_fail(self):
        rng = random.Random(5)
        scene = sample(rng, Wish("two", [("red", "circle"), ("blue", "square")], "above", held_out_allowed=True))
        picture = draw(scene)
        self.assertTrue(is_correct(picture, scene))
        scene.things[0].colour, scene.things[1].colour = "blue", "red"
        self.assertFalse(is_correct(picture, scene))


class Text(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        write_vocabularies(Path(cls.folder.name), TEXT_LENGTH, captions=3000)
        cls.tokenizers = Tokenizers(Path(cls.folder.name))

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_captions_fit_and_case_does_not_matter(self):
        rng = random.Random(6)
        lines = [Speaker(rng).caption(sample(rng)) for _ in range(2000)]
        self.assertTrue((self.tokenizers.t5(lines)[:, -1] == 0).mean() > 0.99)
        self.assertTrue((self.tokenizers.t5(["A Red Circle"]) == self.tokenizers.t5(["a red circle"])).all())
        self.assertTrue((self.tokenizers.clip(["A Red Circle"]) == self.tokenizers.clip(["a red circle"])).all())

    def test_labels_do_not_depend_on_which_object_is_named_first(self):
        rng = random.Random(7)
        pairs = [("red", "circle"), ("blue", "square")]
        above = sample(rng, Wish("two", pairs, "above", held_out_allowed=True))
        below = sample(rng, Wish("two", pairs[::-1], "below", held_out_allowed=True))
        first = labels(above)[: 2 * len(THING_FIELDS)].reshape(2, -1)[:, :3]
        second = labels(below)[: 2 * len(THING_FIELDS)].reshape(2, -1)[:, :3]
        self.assertTrue((first == second).all())
        self.assertEqual(first[:, 0].tolist(), [ROLES.index("top"), ROLES.index("bottom")])
        self.assertEqual(labels(above)[2 * len(THING_FIELDS) + 1], IGNORE)


class Latents(unittest.TestCase):
    def test_packing_is_undone_by_unpacking(self):
        z = torch.randn(2, 8, 32, 32)
        self.assertTrue(torch.equal(unpack_latents(pack_latents(z)), z))


if __name__ == "__main__":
    unittest.main()
