"""Makes the folders and lines of this directory with the reference libraries.

Usage: make_golden.py GOLDENS, the folder of small reference models. Needs transformers 4.57.6, tokenizers 0.22.2,
sentencepiece 0.2.3 and protobuf. sentencepiece before 0.2.3 breaks ties between splits differently.
"""
import json
import shutil
import sys
from pathlib import Path

import transformers
from sentencepiece import sentencepiece_model_pb2 as spiece

HERE = Path(__file__).parent
GOLDENS = Path(sys.argv[1])

TEXTS = [
    "", " ", "a photo of a cat", "  A  PHOTO\tof\r\n a Cat  ", "don't we've I'll he'd 'S 'T ''''", "4K 2024 ½ ² Ⅷ ١٢٣",
    "(masterpiece:1.2), ultra-detailed!!! --ar 16:9", "hello!world! !", "café cafe\u0301 Å Ångström naïve ÉCOLE",
    "İstanbul ΣΑΣ straße ẞ ǅ", "ﬁsh ﬂow ｆｕｌｌ　ｗｉｄｔｈ １２３ ㈱ ℌ ™", "“quotes” ‘single’ … — – ·", "日本語の写真 中文 한국어 사진",
    "हिन्दी क्षत्रिय ไทย עברית العربية ﷺ", "👩\u200d👩\u200d👧 🇩🇪 ❤️ 🎨🌊 🦷", "\U0001eec2 \U00013860 \U0001fab5 \ua7dc \U000e0041",
    "zero\u200bwidth\u200djoin\ufeff soft\u00adhyphen \u2028line\u2029para\u0085nel\x1cfs", "nul\x00inside \x07bell \x7f \ufffd",
    "<|startoftext|> inside <|endoftext|> and <|ENDOFTEXT|>x", "</s>", "a </s> b </s>", "<pad><unk> <s>",
    "one <extra_id_0>  two<extra_id_99>three <extra_id_100> <extra_id_1", "▁mark ▁▁ two", "[CLS] [SEP][MASK] [UNK] [unk] [PAD",
    "##ing un##believable", "<0x41> <0x00>", "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "a" * 120, "ab" * 150, "word " * 90, "=== ____ .... >>>> ~~~~ --- ⩶⩶ ₨ ½½", "x\u0323\u0307 o\u0308\u0304 \u1e69 \u212b \u0958 ཀྵ",
    "tab\tnew\nline\r\n\r\nend\n", " leading", "trailing ", "e\u0301\u0301\u0301 \u0301alone", "ʼn ŉ ſ ﬀ K Ω",
]


def fresh(name):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n")


def take(source, name, files):
    folder = fresh(name)
    for file in files:
        shutil.copyfile(GOLDENS / source / file, folder / file)
        (folder / file).chmod(0o644)
    return folder


def lines(name, tokenizer):
    with open(HERE / name / "golden.jsonl", "w") as out:
        for text in TEXTS:
            ids = tokenizer(text)["input_ids"]
            out.write(json.dumps({"text": text, "ids": ids}, separators=(",", ":")) + "\n")


def t5_config(**more):
    config = {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
              "extra_ids": 100, "legacy": True, "model_max_length": 512}
    return {**config, **more}


def load(cls, name):
    return getattr(transformers, cls).from_pretrained(HERE / name)


clip_files = ["vocab.json", "merges.txt", "tokenizer_config.json"]
take("sdxl/model/tokenizer", "clip", clip_files)
lines("clip", load("CLIPTokenizerFast", "clip"))
# The folders below share their vocabulary with the first of their kind; the test puts the files together.
shared = take("sdxl/model/tokenizer_2", "clip_bang", clip_files)
lines("clip_bang", load("CLIPTokenizerFast", "clip_bang"))
(shared / "vocab.json").unlink()
(shared / "merges.txt").unlink()

folder = take("flux_schnell/model/tokenizer_2", "t5", ["spiece.model"])
write_json(folder / "tokenizer_config.json", t5_config())
lines("t5", load("T5Tokenizer", "t5"))
for name, cls, more in (("t5_new", "T5Tokenizer", {"legacy": False}),
                        ("t5_converted", "T5TokenizerFast", {"tokenizer_class": "T5TokenizerFast"})):
    folder = take("flux_schnell/model/tokenizer_2", name, ["spiece.model"])
    write_json(folder / "tokenizer_config.json", t5_config(**more))
    lines(name, load(cls, name))
    (folder / "spiece.model").unlink()

# Byte fallback and two user-defined pieces, without the big character map.
folder = take("hunyuan_dit/model/tokenizer_2", "mt5", ["spiece.model"])
model = spiece.ModelProto.FromString((folder / "spiece.model").read_bytes())
model.normalizer_spec.precompiled_charsmap = b""
for text in ("ultra-detailed", "  two"):
    model.pieces.add(piece=text, score=0.0, type=spiece.ModelProto.SentencePiece.USER_DEFINED)
(folder / "spiece.model").write_bytes(model.SerializeToString())
write_json(folder / "tokenizer_config.json", t5_config(extra_ids=0))
lines("mt5", load("T5Tokenizer", "mt5"))

folder = fresh("whole")
whole = json.loads((GOLDENS / "wan22/model/tokenizer/tokenizer.json").read_text())
whole["normalizer"]["normalizers"] = [{"type": "NFKC"}, *whole["normalizer"]["normalizers"][1:]]
whole["model"]["vocab"] = whole["model"]["vocab"][:700]
whole["added_tokens"] = [t for t in whole["added_tokens"] if t["id"] < 4]
whole["added_tokens"].append({**whole["added_tokens"][0], "id": 700, "content": "<extra_id_0>", "lstrip": True,
                              "rstrip": True})
whole["added_tokens"].append({**whole["added_tokens"][0], "id": 701, "content": "cat", "special": False,
                              "normalized": True, "single_word": True})
(folder / "tokenizer.json").write_text(json.dumps(whole, ensure_ascii=False, separators=(",", ":")) + "\n")
lines("whole", transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json")))

take("hunyuan_dit/model/tokenizer", "bert", ["vocab.txt", "tokenizer_config.json"])
# Characters newer than Unicode 14 depend on the Python that runs BertTokenizer.
TEXTS = [text for text in TEXTS if "\U00013860" not in text]
lines("bert", load("BertTokenizer", "bert"))
