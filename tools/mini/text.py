"""Captions and scenes as token numbers: both tokenizers, and what a reader of the caption must be able to tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import sentencepiece
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from scenes import Scene
from words import BACKGROUND_KINDS, BACKGROUND_NAMES, COLOUR_NAMES, PLACES, SHAPES, STYLES

TEXT_LENGTH = 32  # tokens of T5; the default max_sequence_length of the model
CLIP_LENGTH = 77
IGNORE = -100

_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizers:
    """Both tokenizers, read from a folder with `tokenizer` and `tokenizer_2`."""

    def __init__(self, folder: Path):
        self._t5 = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer_2" / "spiece.model"))
        self._clip = _clip_tokenizer(folder / "tokenizer")
        self._clip_start = self._clip.token_to_id("<|startoftext|>")
        self._clip_end = self._clip.token_to_id("<|endoftext|>")

    def t5(self, captions: list[str], length: int = TEXT_LENGTH) -> np.ndarray:
        """T5 tokens, ended and padded as diffusers pads them: [captions, length]."""
        out = np.full((len(captions), length), self._t5.pad_id(), np.int16)
        for row, tokens in zip(out, self._t5.encode(captions)):
            tokens = tokens[: length - 1] + [self._t5.eos_id()]
            row[: len(tokens)] = tokens
        return out

    def clip(self, captions: list[str], length: int = CLIP_LENGTH) -> np.ndarray:
        """CLIP tokens between start and end, padded with the end token: [captions, length]."""
        out = np.full((len(captions), length), self._clip_end, np.int16)
        for row, encoding in zip(out, self._clip.encode_batch(captions)):
            tokens = [self._clip_start, *encoding.ids[: length - 2]]
            row[: len(tokens)] = tokens
        return out


def _clip_tokenizer(folder: Path) -> Tokenizer:
    """CLIP's byte-pair tokenizer, without its start and end tokens."""
    model = models.BPE.from_file(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        end_of_word_suffix="</w>",
        unk_token="<|endoftext|>",
    )
    tokenizer = Tokenizer(model)
    spaces = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), spaces, normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(_CLIP_WORDS), behavior="removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


# What each slot of a scene says. Three slots hold the objects, in the order of scene.things brought into a
# canonical order (left or top or inner first); the last slot holds count, kind and background.
SLOTS = 3
SIZES = [None, "small", "large"]
ROLES = ["none", "alone", "many", "left", "right", "top", "bottom", "inner", "outer", "first", "second"]
ROLES += ["row 0", "row 1", "row 2"] + [f"at {p}" for p in PLACES]
THING_FIELDS = {
    "role": len(ROLES),
    "colour": len(COLOUR_NAMES),
    "shape": len(SHAPES),
    "size": len(SIZES),
    "style": len(STYLES) + 1,
}
SCENE_FIELDS = {
    "count": 7,
    "background": len(BACKGROUND_KINDS) + 1,
    "first": len(BACKGROUND_NAMES),
    "second": len(BACKGROUND_NAMES),
    "vertical": 2,
}
LABELS = SLOTS * len(THING_FIELDS) + len(SCENE_FIELDS)

_PAIR_ROLES = {
    "left of": ("left", "right"),
    "right of": ("right", "left"),
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
    "inside": ("inner", "outer"),
}


def _roles(scene: Scene) -> list[str]:
    """The role of each thing (of the first thing only, where all are equal)."""
    if scene.kind == "one":
        return [f"at {scene.place}" if scene.place else "alone"]
    if scene.kind == "two":
        return list(_PAIR_ROLES[scene.relation])
    if scene.kind == "and":
        return ["first", "second"]
    return ["many"] if scene.kind == "count" else ["row 0", "row 1", "row 2"]


def labels(scene: Scene) -> np.ndarray:
    """What the caption of the scene tells, as class numbers [LABELS]; IGNORE where it tells nothing."""
    out = np.full(LABELS, IGNORE, np.int16)
    slots = out[: SLOTS * len(THING_FIELDS)].reshape(SLOTS, -1)
    slots[:, 0] = ROLES.index("none")
    pairs = list(zip(_roles(scene), scene.things))
    if scene.relation in ("right of", "below"):
        pairs.reverse()
    for slot, (role, thing) in zip(slots, pairs):
        style = 1 + STYLES.index(thing.style) if thing.style else 0
        colour, shape = COLOUR_NAMES.index(thing.colour), SHAPES.index(thing.shape)
        slot[:] = [ROLES.index(role), colour, shape, SIZES.index(thing.size), style]
    out[SLOTS * len(THING_FIELDS) :] = _scene_labels(scene)
    return out


def _scene_labels(scene: Scene) -> list[int]:
    """Count, kind of background, its colours, its direction."""
    b = scene.background
    if not b.mentioned:
        return [len(scene.things), 0, IGNORE, IGNORE, IGNORE]
    second = BACKGROUND_NAMES.index(b.second) if b.second else IGNORE
    # "striped red and white background" does not say the direction: the reader learns to shrug there.
    vertical = int(b.vertical) if b.kind == "stripes" else IGNORE
    return [len(scene.things), 1 + BACKGROUND_KINDS.index(b.kind), BACKGROUND_NAMES.index(b.first), second, vertical]
