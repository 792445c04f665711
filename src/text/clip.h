// CLIP's byte-level BPE tokenizer, as CLIPTokenizerFast behaves.
#pragma once
#include <memory>

#include "text/settings.h"
#include "text/tokenizer.h"

namespace atelier::text {

// From vocab.json and merges.txt, or from tokenizer.json alone. Throws Error(kCheckpoint).
std::unique_ptr<Tokenizer> open_clip(const TokenizerConfig& settings);

}  // namespace atelier::text
