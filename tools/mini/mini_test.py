"""Tests of the tool: python3 -m unittest mini_test (seconds on one core)."""

from __future__ import annotations

import random
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

from adapter_data import RIM, scene_with_new_shape
from captions import Speaker
from check import TestSet, is_correct
from check_adapters import SETTINGS, UNSEEN, is_content_right, is_sticker, items
from drawing import pack, render
from lora import Lora, Target
from nets import pack_latents, unpack_latents
from scenes import Scene, Wish, is_held_out, sample
from text import IGNORE, ROLES, TEXT_LENGTH, THING_FIELDS, Tokenizers, labels
from vocab import write_vocabularies
from words import NEW_SHAPES, NEW_SHAPES_UNSEEN, pair_is_held_out


def draw(scene: Scene, rim: float = 0.0) -> np.ndarray:
    """The scene as bytes."""
    things, background = (torch.from_numpy(x)[None] for x in pack(scene))
    return (render(things, background, rim)[0] * 255).round().byte().permute(1, 2, 0).numpy()


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


class AdapterScenes(unittest.TestCase):
    def test_training_shows_the_new_shape_but_never_in_a_colour_that_is_held_out(self):
        rng = random.Random(8)
        for _ in range(400):
            scene = scene_with_new_shape(rng)
            new = [t.colour for t in scene.things if t.shape in NEW_SHAPES]
            self.assertTrue(new)
            self.assertFalse(set(new) & set(NEW_SHAPES_UNSEEN))

    def test_the_category_unseen_holds_only_colours_that_are_held_out(self):
        for category, scene, _ in items(8):
            new = {t.colour for t in scene.things if t.shape in NEW_SHAPES}
            self.assertEqual(bool(new & set(NEW_SHAPES_UNSEEN)), category == UNSEEN)


class AdapterChecker(unittest.TestCase):
    def test_a_house_is_told_from_shapes_that_mini_knows(self):
        for _, scene, caption in items(4):
            self.assertTrue(is_content_right(draw(scene), scene), caption)
            other = Scene.from_dict(scene.to_dict())
            for thing in other.things:
                thing.shape = "square" if thing.shape == "house" else "house"
            self.assertFalse(is_content_right(draw(other), scene), caption)

    def test_stickers_are_told_from_bare_objects(self):
        for _, scene, caption in items(4):
            self.assertTrue(is_sticker(draw(scene, RIM), scene), caption)
            self.assertFalse(is_sticker(draw(scene), scene), caption)

    def test_settings_use_each_adapter_alone_and_both(self):
        self.assertEqual([len(names) for names in SETTINGS.values()], [0, 1, 1, 2])


class Adapters(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.net = torch.nn.ModuleDict({"near": torch.nn.Linear(6, 5), "far": torch.nn.Linear(6, 5)})
        self.lora = Lora({"transformer": self.net}, [Target("transformer", ("near.",), 2)])
        self.x = torch.randn(3, 6)

    def test_it_starts_without_effect_and_then_adds_the_product(self):
        layer, factors = self.net["near"], self.lora.factors
        plain = torch.nn.functional.linear(self.x, layer.weight, layer.bias)
        self.assertTrue(torch.equal(layer(self.x), plain))
        a, b = (factors[f"transformer.near.lora_{k}.weight"] for k in "AB")
        torch.nn.init.ones_(b)
        self.assertTrue(torch.allclose(layer(self.x), plain + self.x @ (b @ a).T, atol=1e-6))

    def test_only_chosen_layers_have_factors_and_a_file_brings_them_back(self):
        self.assertEqual(len(self.lora.factors), 2)
        with tempfile.TemporaryDirectory() as folder:
            self.lora.save(Path(folder) / "a.safetensors", "a test")
            other = Lora({"transformer": self.net}, [Target("transformer", ("near.",), 2)], seed=1)
            other.load(Path(folder) / "a.safetensors")
        for name, p in self.lora.factors.items():
            self.assertTrue(torch.allclose(other.factors[name], p, atol=2e-3), name)


if __name__ == "__main__":
    unittest.main()
