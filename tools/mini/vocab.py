"""Trains both small vocabularies from captions: CLIP's byte-pair merges and T5's SentencePiece model."""

from __future__ import annotations

import collections
import io
import json
import random
from pathlib import Path

import sentencepiece

from captions import Speaker
from scenes import Wish, sample

CLIP_MERGES = 262
START, END = "<|startoftext|>", "<|endoftext|>"
SPARE_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789,.-'!?"
CLIP_TOKENS = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
T5_TOKENS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def corpus(count: int, seed: int = 5) -> list[str]:
    """Captions of random scenes, held-out combinations included: a vocabulary knows words, not combinations."""
    rng = random.Random(seed)
    return [Speaker(rng).caption(sample(rng, Wish(held_out_allowed=True))) for _ in range(count)]


def byte_letters() -> list[str]:
    """CLIP's printable letter for each of the 256 bytes, in CLIP's order of the vocabulary."""
    return list(byte_alphabet().values())


def byte_alphabet() -> dict[int, str]:
    """Byte -> printable letter (printable Latin-1 stays itself, the rest moves above 255)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(others)}


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """The sequence with every occurrence of `pair` joined."""
    out: list[str] = []
    i = 0
    while i < len(symbols):
        joined = tuple(symbols[i : i + 2]) == pair
        out.append("".join(pair) if joined else symbols[i])
        i += 2 if joined else 1
    return out


def learn_merges(lines: list[str], count: int) -> list[tuple[str, str]]:
    """The `count` byte-pair merges learned from the words of the lines."""
    letters = byte_alphabet()
    words = collections.Counter(w for line in lines for w in line.replace(",", " , ").split())
    spelled = {w: [letters[b] for b in w.encode()] for w in words}
    for symbols in spelled.values():
        symbols[-1] += "</w>"
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: collections.Counter = collections.Counter()
        for word, symbols in spelled.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += words[word]
        if not pairs:
            break
        merges.append(max(pairs.items(), key=lambda item: (item[1], item[0]))[0])
        spelled = {w: _merge(s, merges[-1]) for w, s in spelled.items()}
    return merges


def write_clip(lines: list[str], folder: Path) -> None:
    """Writes vocab.json, merges.txt and the configs of a CLIPTokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = learn_merges(lines, CLIP_MERGES)
    letters = byte_letters()
    tokens = letters + [c + "</w>" for c in letters] + ["".join(m) for m in merges] + [START, END]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    config = CLIP_TOKENS | {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
    _write_configs(folder, CLIP_TOKENS, config | {"errors": "replace", "add_prefix_space": False})


def write_t5(lines: list[str], folder: Path, max_length: int) -> None:
    """Writes spiece.model (which folds case) and the configs of a T5Tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    words = sorted({w for line in lines for w in line.replace(",", "").split()})
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        # The words once more, many times: otherwise common ones are split.
        sentence_iterator=iter(lines + words * 200),
        model_writer=model,
        vocab_size=280,
        hard_vocab_limit=False,
        model_type="unigram",
        normalization_rule_name="nmt_nfkc_cf",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        character_coverage=1.0,
        required_chars=SPARE_CHARACTERS,
        max_sentencepiece_length=14,
        num_sub_iterations=1,
        shrinking_factor=0.9,
        seed_sentencepiece_size=20000,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    config = T5_TOKENS | {"tokenizer_class": "T5Tokenizer", "model_max_length": max_length, "extra_ids": 0}
    _write_configs(folder, T5_TOKENS, config | {"additional_special_tokens": [], "legacy": True})


def _write_configs(folder: Path, special: dict, config: dict) -> None:
    """Writes special_tokens_map.json and tokenizer_config.json."""
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def write_vocabularies(folder: Path, max_length: int, captions: int = 40000) -> None:
    """Writes folder/tokenizer (CLIP) and folder/tokenizer_2 (T5)."""
    lines = corpus(captions)
    write_clip(lines, folder / "tokenizer")
    write_t5(lines, folder / "tokenizer_2", max_length)
