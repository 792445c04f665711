// T5's SentencePiece tokenizers (T5, umT5, mT5) in the two behaviours that transformers has for them.
#pragma once
#include <memory>

#include "text/settings.h"
#include "text/tokenizer.h"

namespace atelier::text {

// Which of the two, where nothing but the files and their settings tells: tokenizer.json means the fast one,
// spiece.model alone the slow one unless the class name ends in Fast. kSlow: a pipeline names the slow class,
// which reads spiece.model where there is one.
enum class T5Choice { kByFiles, kSlow };
// Throws Error(kCheckpoint).
std::unique_ptr<Tokenizer> open_t5(const TokenizerConfig& settings, T5Choice choice);

// T5TokenizerFast from tokenizer.json, or converted from spiece.model.
std::unique_ptr<Tokenizer> open_t5_fast(const TokenizerConfig& settings);
// T5Tokenizer from spiece.model: SentencePiece itself, with byte fallback where the model has it.
std::unique_ptr<Tokenizer> open_t5_slow(const TokenizerConfig& settings);

// How many <extra_id_N> the class adds behind the vocabulary (`extra_ids`, 100 where unset).
int64_t extra_ids(const TokenizerConfig& settings);

// The id of a token by its text among the added tokens, or -1.
int64_t find_added(const std::vector<AddedToken>& added, std::string_view content);

}  // namespace atelier::text
