// Padding, truncation, odd bytes, and what malformed folders are answered with.
#include "text/tokenizer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "text/cleaning.h"

namespace atelier::text {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int64_t>;

const fs::path kData = "src/text/testdata";

// A temporary tokenizer folder, removed at the end.
class Folder {
 public:
  Folder() : path_(fs::path(testing::TempDir()) / ("atelier_text_folder_" + std::to_string(::getpid()))) {
    fs::remove_all(path_);
  }
  explicit Folder(const fs::path& from) : Folder() { fs::copy(from, path_); }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  void write(const std::string& name, std::string_view bytes) { write_file_atomically(path_ / name, bytes); }
  void remove(const std::string& name) { fs::remove(path_ / name); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

// What opening this folder is answered with; fails when it opens or when the error is of another kind.
std::string refusal(const fs::path& folder) {
  try {
    open_tokenizer(folder);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kCheckpoint) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "opened";
  return "";
}

void expect_mentions(const std::string& text, const std::string& word) {
  EXPECT_NE(text.find(word), std::string::npos) << "no \"" << word << "\" in: " << text;
}

TEST(Encode, ShortText_IsPaddedAtTheRight) {
  const auto clip = open_tokenizer(kData / "clip");
  const Encoding encoded = clip->encode("a cat", 8);
  const Ids plain = clip->ids("a cat");
  ASSERT_EQ(encoded.ids.size(), 8U);
  ASSERT_EQ(encoded.mask.size(), 8U);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(encoded.ids[i], i < plain.size() ? plain[i] : clip->pad_id());
    EXPECT_EQ(encoded.mask[i], i < plain.size() ? 1 : 0);
  }
}

TEST(Encode, LongText_KeepsTheClosingToken) {
  for (const char* name : {"clip", "t5", "mt5", "bert"}) {
    const auto tokenizer = open_tokenizer(kData / name);
    const Ids plain = tokenizer->ids("one two three four five six seven eight nine ten");
    const Encoding encoded = tokenizer->encode("one two three four five six seven eight nine ten", 6);
    Ids expected(plain.begin(), plain.begin() + 5);
    expected.push_back(plain.back());
    EXPECT_EQ(encoded.ids, expected) << name;
    EXPECT_EQ(encoded.mask, Ids(6, 1)) << name;
  }
}

// As transformers 4.57.6: T5Tokenizer drops a token to make room for "</s>", and adds none where what is left
// ends in one. The fast class, CLIP's and BERT's add theirs always.
TEST(Encode, SlowT5_DoesNotCloseTwiceAtTheCut) {
  const auto slow = open_tokenizer(kData / "t5");
  const Ids plain = slow->ids("a cat sat on the mat");
  const int64_t end = plain.back(), pad = slow->pad_id();
  const auto n = static_cast<int64_t>(slow->ids("a cat").size()) - 1;  // of "a cat" alone
  const Ids cat(plain.begin(), plain.begin() + n);
  const auto with = [&](Ids more) {
    Ids all = cat;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const auto cut = slow->encode("a cat</s> sat on the mat", n + 2);
  EXPECT_EQ(cut.ids, with({end, pad}));
  Ids mask(static_cast<size_t>(n + 1), 1);
  mask.push_back(0);
  EXPECT_EQ(cut.mask, mask);
  EXPECT_TRUE(cut.is_cut);
  EXPECT_EQ(slow->encode("a cat</s></s>", n + 2).ids, with({end, pad}));
  EXPECT_FALSE(slow->encode("a cat</s></s>", n + 2).is_cut);
  EXPECT_EQ(slow->encode("a cat</s></s>", n + 3).ids, with({end, end, pad}));
  EXPECT_EQ(slow->encode("a cat</s>", n + 1).ids, with({end}));
  EXPECT_EQ(slow->encode("a cat sat on the mat", n + 1).ids, with({end}));
}

TEST(Encode, NoRoomForSpecialTokens_IsAUsageError) {
  const auto clip = open_tokenizer(kData / "clip");
  EXPECT_EQ(clip->encode("a cat", 2).ids, clip->ids(""));
  for (const int64_t length : {1, 0, -1}) {
    try {
      clip->encode("a cat", length);
      ADD_FAILURE() << length;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), Kind::kUsage);
    }
  }
}

TEST(LeftOut, IsWhatNoLongerFits) {
  const std::string text = "one two three four five six seven eight nine ten";
  for (const char* name : {"clip", "t5", "mt5", "bert"}) {
    const auto tokenizer = open_tokenizer(kData / name);
    const auto whole = static_cast<int64_t>(tokenizer->ids(text).size());
    EXPECT_EQ(left_out(*tokenizer, text, whole), "") << name;
    EXPECT_EQ(left_out(*tokenizer, "", 2), "") << name;
    for (int64_t length = 3; length < whole; ++length) {
      const std::string rest = left_out(*tokenizer, text, length);
      ASSERT_FALSE(rest.empty()) << name << length;
      EXPECT_TRUE(text.ends_with(rest)) << name << ": " << rest;
      const std::string kept = text.substr(0, text.size() - rest.size());
      EXPECT_LE(static_cast<int64_t>(tokenizer->ids(kept).size()), length) << name << ": " << kept;
    }
  }
  const auto bert = open_tokenizer(kData / "bert");
  EXPECT_EQ(left_out(*bert, "\u4e00 \u4e00\u4e00\u4e00", 4), "\u4e00\u4e00");
}

TEST(Open, APipelineThatNamesTheSlowClassReadsSpieceBesideTokenizerJson) {
  Folder folder(kData / "mt5");
  fs::copy(kData / "whole" / "tokenizer.json", folder.path());
  const auto ids = [&](std::string_view class_name) {
    return open_tokenizer(folder.path(), class_name)->ids("a fox");
  };
  const Ids slow = open_tokenizer(kData / "mt5")->ids("a fox"),
            fast = open_tokenizer(kData / "whole")->ids("a fox");
  ASSERT_NE(slow, fast);
  EXPECT_EQ(ids("T5Tokenizer"), slow);
  EXPECT_EQ(ids("MT5Tokenizer"), slow);
  EXPECT_EQ(ids("T5TokenizerFast"), fast);
  EXPECT_EQ(ids(""), fast);
  folder.remove("spiece.model");
  EXPECT_EQ(ids("T5Tokenizer"), fast);
}

TEST(Cleaning, LowersAndStripsAsPython) {
  EXPECT_EQ(lower_stripped("  A Red FOX\n"), "a red fox");
  EXPECT_EQ(lower_stripped("\u00c4\u0130I"), "\u00e4i\u0307i");
  EXPECT_EQ(lower_stripped("\u0391\u03a3 \u03a3\u0391\u03a3\u0391 \u03a3"),
            "\u03b1\u03c2 \u03c3\u03b1\u03c3\u03b1 \u03c3");
  EXPECT_EQ(lower_stripped("\u0391\u03a3'\u0391 \u0391\u03a3'"), "\u03b1\u03c3'\u03b1 \u03b1\u03c2'")
      << "an apostrophe stands between cased letters, or behind the last";
  EXPECT_EQ(lower_stripped("\u3000\x1f x\u00a0"), "x");
  EXPECT_EQ(lower_stripped(""), "");
  EXPECT_EQ(lower_stripped("A\xff"), "a\uFFFD");
}

TEST(ModelMaxLength, ComesFromTheConfiguration_HugeWhereUnset) {
  EXPECT_EQ(open_tokenizer(kData / "clip")->model_max_length(), 77);
  EXPECT_EQ(open_tokenizer(kData / "t5")->model_max_length(), 512);
  EXPECT_EQ(open_tokenizer(kData / "whole")->model_max_length(), std::numeric_limits<int64_t>::max());
  Folder folder(kData / "bert");
  folder.write("tokenizer_config.json", R"({"model_max_length": 1000000000000000019884624838656})");
  EXPECT_EQ(open_tokenizer(folder.path())->model_max_length(), std::numeric_limits<int64_t>::max());
}

TEST(PadToken, FollowsTheConfiguration_OrTheSpecialTokensMap) {
  Folder folder(kData / "clip");
  EXPECT_EQ(open_tokenizer(folder.path())->pad_id(), 1013);
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "CLIPTokenizer"})");
  EXPECT_EQ(open_tokenizer(folder.path())->pad_id(), 1013);
  folder.write("special_tokens_map.json", R"({"pad_token": "!"})");
  const auto bang = open_tokenizer(folder.path());
  EXPECT_EQ(bang->pad_id(), 0);
  EXPECT_EQ(bang->ids("!"), (Ids{1012, 0, 1013}));
}

TEST(Ids, MalformedUtf8_CountsAsReplacementCharacters) {
  for (const char* name : {"clip", "t5", "mt5", "bert", "whole"}) {
    const auto tokenizer = open_tokenizer(kData / name);
    EXPECT_EQ(tokenizer->ids("a\xff"
                             "b\xc3"),
              tokenizer->ids("a\uFFFDb\uFFFD"))
        << name;
    EXPECT_EQ(tokenizer->ids("\xed\xa0\x80\xf0\x9f"), tokenizer->ids("\uFFFD\uFFFD\uFFFD\uFFFD")) << name;
    for (int byte = 0; byte < 256; ++byte) tokenizer->ids(std::string(3, static_cast<char>(byte)));
  }
}

TEST(Ids, LongTexts_TakeLinearTime) {
  const std::string run(200000, 'a');
  std::string many;
  for (int i = 0; i < 20000; ++i) many += "</s><extra_id_1>  ";
  for (const char* name : {"clip", "t5", "mt5", "bert", "whole"}) {
    const auto tokenizer = open_tokenizer(kData / name);
    EXPECT_GT(tokenizer->ids(run).size(), 2U) << name;
    EXPECT_GT(tokenizer->ids(many).size(), 20000U) << name;
  }
}

TEST(Open, MissingFolderOrFiles_NamesThemAndWhatToDo) {
  expect_mentions(refusal("src/text/testdata/nothing"), "src/text/testdata/nothing");
  Folder folder(kData / "clip");
  folder.remove("merges.txt");
  expect_mentions(refusal(folder.path()), "merges.txt");
  expect_mentions(refusal(folder.path()), "download");
  folder.remove("vocab.json");
  expect_mentions(refusal(folder.path()), "vocab.json");
  folder.remove("tokenizer_config.json");
  expect_mentions(refusal(folder.path()), "spiece.model");
}

TEST(Open, UnknownClass_IsNamed) {
  Folder folder(kData / "clip");
  folder.write("tokenizer_config.json", R"({"tokenizer_class": "GPT2Tokenizer"})");
  expect_mentions(refusal(folder.path()), "GPT2Tokenizer");
}

TEST(Open, NoConfiguration_ClassComesFromTheFiles) {
  for (const char* name : {"clip", "t5", "bert"}) {
    Folder folder(kData / name);
    const Ids expected = open_tokenizer(folder.path())->ids("a photo");
    folder.remove("tokenizer_config.json");
    EXPECT_EQ(open_tokenizer(folder.path())->ids("a photo"), expected) << name;
  }
}

TEST(Open, TokenizerJsonAlone_GivesTheSameIdsAsTheSplitFiles) {
  const Ids clip_ids = open_tokenizer(kData / "clip")->ids("A photo, don't!");
  Folder clip(kData / "clip");
  Json model{{"type", "BPE"}, {"vocab", read_json(clip.path() / "vocab.json")}, {"merges", Json::array()}};
  std::istringstream merges(read_file(clip.path() / "merges.txt"));
  std::string line;
  std::getline(merges, line);
  while (std::getline(merges, line)) model["merges"].push_back(line);
  clip.remove("vocab.json");
  clip.remove("merges.txt");
  clip.write("tokenizer.json", Json{{"model", model}}.dump());
  EXPECT_EQ(open_tokenizer(clip.path())->ids("A photo, don't!"), clip_ids);

  const Ids bert_ids = open_tokenizer(kData / "bert")->ids("A photo, don't!");
  Folder bert(kData / "bert");
  Json vocabulary = Json::object();
  std::istringstream words(read_file(bert.path() / "vocab.txt"));
  for (int64_t id = 0; std::getline(words, line); ++id) vocabulary[line] = id;
  bert.remove("vocab.txt");
  bert.write("tokenizer.json", Json{{"model", {{"type", "WordPiece"}, {"vocab", vocabulary}}}}.dump());
  EXPECT_EQ(open_tokenizer(bert.path())->ids("A photo, don't!"), bert_ids);
}

// Each: a folder of testdata/, the file replaced, its new contents.
struct Damage {
  const char* folder;
  const char* file;
  std::string bytes;
};

TEST(Open, MalformedFiles_AreNamed) {
  const std::string deep(100000, '[');
  const Damage damages[] = {
      {"clip", "vocab.json", "{\"a\": "},
      {"clip", "vocab.json", deep},
      {"clip", "vocab.json", "[]"},
      {"clip", "vocab.json", R"({"a": "b"})"},
      {"clip", "vocab.json", R"({"<|startoftext|>": -1})"},
      {"clip", "merges.txt", "#version\na b c\n"},
      {"clip", "merges.txt", "#version\nzzzz qqqq\n"},
      {"clip", "merges.txt", "#version\n" + std::string(1 << 20, 'x')},
      {"clip", "tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "a"}}})"},
      {"clip", "tokenizer_config.json", R"({"added_tokens_decoder": {"1": "a"}})"},
      {"clip", "tokenizer_config.json", R"({"model_max_length": "long"})"},
      {"t5", "spiece.model", ""},
      {"t5", "spiece.model", "not a model"},
      {"t5", "spiece.model", std::string("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10)},
      {"t5", "tokenizer_config.json", R"({"extra_ids": 99999999999})"},
      {"t5", "tokenizer_config.json", R"({"extra_ids": "many"})"},
      {"whole", "tokenizer.json", R"({"model": {"type": "Unigram", "vocab": [], "unk_id": 0}})"},
      {"whole", "tokenizer.json", R"({"model": {"type": "Unigram", "vocab": [["a", 0]], "unk_id": 7}})"},
      {"whole", "tokenizer.json", R"({"model": {"type": "Unigram", "vocab": [1], "unk_id": 0}})"},
      {"whole", "tokenizer.json", R"({"model": {"type": "Forest"}})"},
      {"bert", "vocab.txt", ""},
      {"bert", "tokenizer_config.json", R"({"do_lower_case": 3})"},
  };
  for (const Damage& damage : damages) {
    Folder folder(kData / damage.folder);
    folder.write(damage.file, damage.bytes);
    SCOPED_TRACE(std::string(damage.file) + ": " + damage.bytes.substr(0, 60));
    expect_mentions(refusal(folder.path()), folder.path().string());
  }
}

// A conversion would make some other number of them.
TEST(Open, NumbersThatAreNoIds_AreNamed) {
  const Damage damages[] = {
      {"clip", "vocab.json", R"({"a": 1e308})"},
      {"clip", "vocab.json", R"({"a": 0.5})"},
      {"clip", "vocab.json", R"({"a": 9223372036854775808})"},
      {"t5", "added_tokens.json", R"({"<x>": -1e308})"},
      {"t5", "added_tokens.json", R"({"<x>": true})"},
      {"t5", "tokenizer_config.json", R"({"extra_ids": 1e308})"},
      {"t5", "tokenizer_config.json", R"({"extra_ids": 99.5})"},
      {"whole", "tokenizer.json", R"({"model": {"type": "Unigram", "vocab": [["a", 0]], "unk_id": 0.5}})"},
      {"whole", "tokenizer.json", R"({"model": {"type": "Unigram", "vocab": [["a", 0]], "unk_id": 1e308}})"},
  };
  for (const Damage& damage : damages) {
    Folder folder(kData / damage.folder);
    folder.write(damage.file, damage.bytes);
    SCOPED_TRACE(std::string(damage.file) + ": " + damage.bytes);
    expect_mentions(refusal(folder.path()), "no whole number");
  }
}

TEST(Open, UnsupportedSteps_AreNamedInsteadOfSkipped) {
  Folder folder;
  folder.write("tokenizer.json", R"({"normalizer": {"type": "Nmt"},
    "model": {"type": "Unigram", "vocab": [["<unk>", 0], ["<pad>", 0]], "unk_id": 0}})");
  expect_mentions(refusal(folder.path()), "Nmt");
}

TEST(Open, CutOrCorruptedVocabularies_NeverCrash) {
  for (const auto& [name, file] :
       std::map<std::string, std::string>{{"mt5", "spiece.model"}, {"t5", "spiece.model"}}) {
    const std::string whole = read_file(kData / name / file);
    Folder folder(kData / name);
    uint32_t state = 1;
    for (int round = 0; round < 60; ++round) {
      std::string bytes = whole;
      for (int i = 0; i < 40; ++i) {
        state = state * 1664525U + 1013904223U;
        bytes[state % bytes.size()] = static_cast<char>(state >> 24);
      }
      if (round % 2 == 1) bytes.resize(state % bytes.size());
      folder.write(file, bytes);
      try {
        open_tokenizer(folder.path())->ids("a photo of ﬁsh ① Å ㈱ \U0001f98a");
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), Kind::kCheckpoint);
      }
    }
  }
}

}  // namespace
}  // namespace atelier::text
