// BERT's WordPiece tokenizer, as the slow BertTokenizer behaves.
#pragma once
#include <memory>

#include "text/settings.h"
#include "text/tokenizer.h"

namespace atelier::text {

// From vocab.txt, or from tokenizer.json's vocabulary. Throws Error(kCheckpoint).
std::unique_ptr<Tokenizer> open_bert(const TokenizerConfig& settings);

}  // namespace atelier::text
