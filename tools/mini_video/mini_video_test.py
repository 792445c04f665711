"""Tests of the tool: python3 -m unittest mini_video_test (seconds on one core; more with diffusers installed)."""

from __future__ import annotations

import importlib.util
import random
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

from safetensors.torch import load_file

from autoencoder import VAE, Autoencoder
from export import write_folder
from film import pack, render, whole
from networks import PIPELINE_TEXT, TRANSFORMER, UMT5, TextEncoder, Transformer, from_tokens, text_bias, to_tokens
from normed import normed, plain
from phrases import Narrator
from pieces import Tokenizer, write_vocabulary
from reopen import reopen
from score import test_set
from watch import judge
from world import MOTIONS, SIZE, Clip, is_held_out, pair_is_held_out, path, sample, sample_shown

SHIPPED = Path(__file__).resolve().parent.parent.parent / "models/mini-video"
has_diffusers = importlib.util.find_spec("diffusers") is not None


def draw(clip: Clip) -> np.ndarray:
    """The clip as bytes."""
    frames = render(*whole(torch.from_numpy(pack(clip))[None]))[0]
    return (frames * 255).round().byte().permute(0, 2, 3, 1).numpy()


class World(unittest.TestCase):
    def test_training_never_shows_held_out_combinations(self):
        rng = random.Random(3)
        for _ in range(2000):
            self.assertFalse(is_held_out(sample_shown(rng)))

    def test_objects_stay_inside(self):
        rng = random.Random(4)
        for _ in range(2000):
            clip = sample(rng)
            places = path(clip)[:, :2]
            self.assertTrue((places > 0.6 * clip.radius).all() and (places < SIZE - 0.6 * clip.radius).all(), clip)

    def test_clips_survive_json(self):
        clip = sample(random.Random(4))
        self.assertEqual(clip, Clip(**clip.to_dict()))

    def test_categories_hold_what_they_say(self):
        for category, clip, _ in test_set(5):
            self.assertEqual("seen" not in category, is_held_out(clip), category)
            self.assertEqual("new pair" in category, pair_is_held_out(clip.colour, clip.shape), category)


class Reopened(unittest.TestCase):
    def test_a_shipped_folder_comes_back_from_its_work_folder(self):
        with tempfile.TemporaryDirectory() as scratch:
            reopen(SHIPPED, Path(scratch) / "work")
            write_folder(Path(scratch) / "work", Path(scratch) / "out")
            for file in SHIPPED.rglob("*.safetensors"):
                shipped, again = load_file(file), load_file(Path(scratch) / "out" / file.relative_to(SHIPPED))
                self.assertEqual(shipped.keys(), again.keys())
                for name, tensor in shipped.items():
                    self.assertTrue(torch.equal(tensor, again[name]), name)


class Checker(unittest.TestCase):
    def test_truth_passes(self):
        for _, clip, caption in test_set(2):
            self.assertTrue(all(judge(draw(clip), clip).values()), caption)

    def test_another_motion_or_speed_fails(self):
        for _, clip, caption in test_set(1):
            frames, asked = draw(clip), dict(clip.to_dict())
            for motion in MOTIONS:
                if motion != clip.motion:
                    self.assertFalse(judge(frames, Clip(**asked | {"motion": motion}))["motion"], (caption, motion))
            if clip.kind == "move":
                other = "quickly" if clip.speed == "slowly" else "slowly"
                self.assertFalse(judge(frames, Clip(**asked | {"speed": other}))["motion"], caption)

    def test_another_colour_or_shape_fails(self):
        clip = sample(random.Random(5))
        other = {"colour": "red" if clip.colour != "red" else "blue"}
        other["shape"] = "star" if clip.shape != "star" else "circle"
        verdict = judge(draw(clip), Clip(**clip.to_dict() | other))
        self.assertFalse(verdict["colour"] or verdict["shape"])

    def test_reversed_and_shuffled_clips_fail(self):
        clip = sample(random.Random(6), "move right")
        frames = draw(clip)
        self.assertFalse(judge(frames[::-1], clip)["motion"])
        self.assertFalse(judge(frames[np.random.RandomState(1).permutation(len(frames))], clip)["motion"])


class Text(unittest.TestCase):
    def test_captions_fit_and_case_does_not_matter(self):
        with tempfile.TemporaryDirectory() as folder:
            write_vocabulary(Path(folder), captions=3000)
            tokenizer, rng = Tokenizer(Path(folder)), random.Random(6)
            lines = [Narrator(rng).caption(sample(rng)) for _ in range(2000)]
            tokens = tokenizer.encode(lines)
            self.assertTrue((tokens[:, -1] == 0).all() and tokens.max() < UMT5["vocab_size"])
            self.assertTrue((tokenizer.encode(["A Red Circle"]) == tokenizer.encode(["a red circle"])).all())


class Networks(unittest.TestCase):
    @unittest.skipUnless(torch.cuda.is_available(), "needs a GPU")
    def test_the_kernel_before_convolutions_is_the_plain_form(self):
        for shape in ((2, 5, 6, 7, 16), (3, 1, 8, 8, 12), (2, 17, 8, 8, 32)):
            x, gamma = torch.randn(shape, device="cuda"), torch.randn(shape[-1], device="cuda")
            results = []
            for f in (plain, normed):
                inputs = x.clone().requires_grad_(), gamma.clone().requires_grad_()
                out = f(*inputs)
                upward = torch.sin(torch.arange(out.numel(), device="cuda").view_as(out))
                results.append([out, *torch.autograd.grad(out, inputs, upward)])
            for ours, wanted in zip(*results):
                self.assertLess((ours - wanted).abs().max(), 1e-4 * wanted.abs().max())

    def test_tokens_are_undone(self):
        z = torch.randn(2, 16, 5, 8, 8)
        self.assertTrue(torch.equal(from_tokens(to_tokens(z)), z))

    @unittest.skipUnless(has_diffusers, "needs diffusers")
    def test_the_autoencoder_is_that_of_diffusers(self):
        from diffusers import AutoencoderKLWan

        torch.manual_seed(1)
        ours, theirs = Autoencoder(), AutoencoderKLWan(**VAE)
        theirs.load_state_dict(ours.state_dict())
        frames = torch.randn(1, 9, 3, 32, 24)
        with torch.no_grad():
            z = ours.encode(frames)[0]
            reference = theirs.encode(frames.transpose(1, 2)).latent_dist.mode()
            self.assertLess((z.transpose(1, 2) - reference).abs().max(), 1e-5)
            drawn = theirs.decode(reference).sample.transpose(1, 2)
            self.assertLess((ours.decode(z).clamp(-1, 1) - drawn).abs().max(), 1e-5)

    @unittest.skipUnless(has_diffusers and SHIPPED.is_dir(), "needs diffusers and the shipped model")
    def test_the_shipped_autoencoder_in_one_pass_is_that_of_diffusers_with_its_cache(self):
        from diffusers import AutoencoderKLWan
        from safetensors.torch import load_file

        ours, theirs = Autoencoder(), AutoencoderKLWan.from_pretrained(SHIPPED / "vae", torch_dtype=torch.float32)
        weights = load_file(SHIPPED / "vae/diffusion_pytorch_model.safetensors")
        ours.load_state_dict({k: v.float() for k, v in weights.items()})
        frames = torch.from_numpy(draw(sample(random.Random(8), "move right"))).permute(0, 3, 1, 2)[None] / 127.5 - 1
        with torch.no_grad():
            z = ours.encode(frames)[0]
            reference = theirs.encode(frames.transpose(1, 2)).latent_dist.mode()
            self.assertLess((z.transpose(1, 2) - reference).abs().max(), 1e-4)
            drawn = theirs.decode(reference).sample.transpose(1, 2)
            self.assertLess((ours.decode(z).clamp(-1, 1) - drawn).abs().max(), 1e-4)
        self.assertGreater(-10 * torch.log10((drawn - frames).pow(2).mean() / 4), 32)

    @unittest.skipUnless(has_diffusers, "needs diffusers")
    def test_transformer_and_text_encoder_are_those_of_diffusers(self):
        from diffusers import WanTransformer3DModel
        from transformers import UMT5Config, UMT5EncoderModel

        torch.manual_seed(2)
        ours, theirs = Transformer(), WanTransformer3DModel(**TRANSFORMER)
        theirs.load_state_dict(ours.state_dict())
        encoder, reference = TextEncoder(), UMT5EncoderModel(UMT5Config(**UMT5))
        reference.load_state_dict(encoder.state_dict(), strict=False)
        tokens = torch.zeros(2, PIPELINE_TEXT, dtype=torch.long)
        tokens[0, :5], tokens[1, :9] = torch.arange(3, 8), torch.arange(3, 12)
        x, time = torch.randn(2, 16, 5, 8, 8), torch.tensor([900.0, 333.0])
        with torch.no_grad():
            told = (tokens > 0).long()
            whole_text = reference.eval()(tokens, attention_mask=told)[0] * told[..., None]
            short = encoder(tokens[:, :32])
            self.assertLess((short - whole_text[:, :32]).abs().max(), 1e-5)
            velocity = ours(to_tokens(x), time, short, text_bias(tokens[:, :32], float(PIPELINE_TEXT)))
            wanted = theirs(x, time, whole_text, return_dict=False)[0]
            self.assertLess((from_tokens(velocity) - wanted).abs().max(), 1e-4)


if __name__ == "__main__":
    unittest.main()
