"""Captions as numbers: the SentencePiece vocabulary, tokens, and what a caption tells."""

from __future__ import annotations

import io
import json
import random
import tempfile
from pathlib import Path

import numpy as np
import sentencepiece

from phrases import Narrator
from world import BACKGROUND_NAMES, COLOUR_NAMES, MOTIONS, SHAPE_NAMES, SPEEDS, Clip, sample

TEXT_LENGTH = 32  # tokens kept in training; pipelines pad to 512 with states of zeros
PAD, END = 0, 1
SPARE_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.-'!?"
SPECIAL_TOKENS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
FIELDS = {
    "colour": len(COLOUR_NAMES),
    "shape": len(SHAPE_NAMES),
    "motion": len(MOTIONS),
    "speed": len(SPEEDS),
    "background": 1 + len(BACKGROUND_NAMES),
}


def labels(clip: Clip) -> list[int]:
    """What the caption of the clip tells, in the order of FIELDS."""
    ground = 1 + BACKGROUND_NAMES.index(clip.background) if clip.background_told else 0
    return [
        COLOUR_NAMES.index(clip.colour),
        SHAPE_NAMES.index(clip.shape),
        MOTIONS.index(clip.motion),
        SPEEDS.index(clip.speed),
        ground,
    ]


class Tokenizer:
    """The vocabulary of a folder with spiece.model."""

    def __init__(self, folder: Path):
        self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))

    def encode(self, captions: list[str], length: int = TEXT_LENGTH) -> np.ndarray:
        """Tokens, ended and padded as the pipeline pads them: [captions, length]."""
        out = np.full((len(captions), length), PAD, np.int16)
        for row, tokens in zip(out, self._pieces.encode(captions)):
            tokens = tokens[: length - 1] + [END]
            row[: len(tokens)] = tokens
        return out


def write_vocabulary(folder: Path, captions: int = 30000, seed: int = 5) -> None:
    """Writes spiece.model and the configs of a T5Tokenizer, learned from captions of random clips."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    narrator = Narrator(rng)
    lines = [narrator.caption(sample(rng)) for _ in range(captions)]
    words = sorted({w for line in lines for w in line.replace(",", "").split()})
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        # Case is folded by a table of 26 rules: the usual table for all of Unicode takes 250 kB.
        rules.writelines(f"{ord(c.upper()):X}\t{ord(c):X}\n" for c in "abcdefghijklmnopqrstuvwxyz")
        rules.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines + words * 200),  # or common words are split
            model_writer=model,
            vocab_size=200,
            hard_vocab_limit=False,
            model_type="unigram",
            normalization_rule_tsv=rules.name,
            pad_id=PAD,
            eos_id=END,
            unk_id=2,
            bos_id=-1,
            character_coverage=1.0,
            required_chars=SPARE_CHARACTERS,
            max_sentencepiece_length=14,
            minloglevel=2,
        )
    (folder / "spiece.model").write_bytes(model.getvalue())
    config = {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "extra_ids": 0}
    config |= SPECIAL_TOKENS | {"additional_special_tokens": [], "legacy": True}
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL_TOKENS, indent=1) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
