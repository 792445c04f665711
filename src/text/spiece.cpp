// Protocol-buffer wire format by hand: six fields do not justify a code generator and its runtime.
#include "text/spiece.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "text/unicode.h"

namespace atelier::text {
namespace {

struct Field {
  uint64_t number = 0;
  uint64_t value = 0;      // varints and fixed-width numbers
  std::string_view bytes;  // strings and nested messages
};

class MessageReader {
 public:
  explicit MessageReader(std::string_view bytes) : rest_(bytes) {}

  // False at the end. Throws std::invalid_argument when the bytes are no message.
  bool next(Field& field) {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    field = {.number = key >> 3};
    switch (key & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = fixed(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5:
        field.value = fixed(4);
        break;
      default:
        throw std::invalid_argument("it is not a SentencePiece model");
    }
    return true;
  }

 private:
  std::string_view take(uint64_t count) {
    if (count > rest_.size())
      throw std::invalid_argument("it is not a SentencePiece model, or it is cut short");
    const std::string_view taken = rest_.substr(0, static_cast<size_t>(count));
    rest_.remove_prefix(static_cast<size_t>(count));
    return taken;
  }

  uint64_t fixed(size_t count) {
    uint64_t value = 0;
    std::memcpy(&value, take(count).data(), count);
    return value;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw std::invalid_argument("it is not a SentencePiece model");
  }

  std::string_view rest_;
};

Piece parse_piece(std::string_view bytes) {
  Piece piece;
  Field field;
  for (MessageReader reader(bytes); reader.next(field);) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2) {
      float score = 0;
      std::memcpy(&score, &field.value, sizeof score);
      piece.score = static_cast<double>(score);
    }
    if (field.number == 3 && field.value >= 1 && field.value <= 6)
      piece.type = static_cast<PieceType>(field.value);
  }
  return piece;
}

void parse_trainer(std::string_view bytes, SpieceModel& model) {
  Field field;
  for (MessageReader reader(bytes); reader.next(field);) {
    if (field.number == 3) model.model_type = static_cast<int64_t>(field.value);
    if (field.number == 24) model.treat_whitespace_as_suffix = field.value != 0;
    if (field.number == 35) model.byte_fallback = field.value != 0;
  }
}

void parse_normalizer_spec(std::string_view bytes, SpieceModel& model) {
  Field field;
  for (MessageReader reader(bytes); reader.next(field);) {
    if (field.number == 2) model.charsmap = field.bytes;
    if (field.number == 3) model.add_dummy_prefix = field.value != 0;
    if (field.number == 4) model.remove_extra_whitespaces = field.value != 0;
    if (field.number == 5) model.escape_whitespaces = field.value != 0;
  }
}

}  // namespace

SpieceModel parse_spiece(std::string_view bytes) {
  SpieceModel model;
  Field field;
  for (MessageReader reader(bytes); reader.next(field);) {
    if (field.number == 1) model.pieces.push_back(parse_piece(field.bytes));
    if (field.number == 2) parse_trainer(field.bytes, model);
    if (field.number == 3) parse_normalizer_spec(field.bytes, model);
  }
  if (model.pieces.empty())
    throw std::invalid_argument("it holds no pieces: it is not a SentencePiece model");
  if (model.model_type != 1)
    throw std::invalid_argument("it is not a unigram model, which alone is supported");
  if (model.treat_whitespace_as_suffix) {
    throw std::invalid_argument("it treats white space as a suffix, which is not supported");
  }
  const auto unknown = std::ranges::find(model.pieces, PieceType::kUnknown, &Piece::type);
  if (unknown == model.pieces.end()) throw std::invalid_argument("it has no unknown piece");
  model.unk_id = unknown - model.pieces.begin();
  return model;
}

SpieceNormalizer::SpieceNormalizer(const SpieceModel& model)
    : charsmap_(model.charsmap),
      add_dummy_prefix_(model.add_dummy_prefix),
      remove_extra_whitespaces_(model.remove_extra_whitespaces),
      space_(model.escape_whitespaces ? "\u2581" : " ") {
  for (const Piece& piece : model.pieces) {
    if (piece.type == PieceType::kUserDefined && !piece.text.empty()) kept_.push_back(piece.text);
  }
  std::ranges::sort(kept_, std::ranges::greater{}, [](const std::string& piece) { return piece.size(); });
}

Charsmap::Rule SpieceNormalizer::prefix(std::string_view text) const {
  for (const std::string& piece : kept_) {
    if (text.starts_with(piece)) return {piece.size(), text.substr(0, piece.size())};
  }
  if (const auto rule = charsmap_.longest(text)) return *rule;
  const size_t one = std::min(char_length(text[0]), text.size());
  return {one, text.substr(0, one)};
}

std::string SpieceNormalizer::operator()(std::string_view text) const {
  if (remove_extra_whitespaces_) {
    while (!text.empty()) {
      const Charsmap::Rule first = prefix(text);
      if (first.replacement != " ") break;
      text.remove_prefix(first.length);
    }
  }
  std::string out;
  if (text.empty()) return out;
  if (add_dummy_prefix_) out += space_;
  bool after_space = remove_extra_whitespaces_;
  while (!text.empty()) {
    Charsmap::Rule next = prefix(text);
    text.remove_prefix(next.length);
    while (after_space && next.replacement.starts_with(' ')) next.replacement.remove_prefix(1);
    for (const char c : next.replacement) {
      if (c == ' ') {
        out += space_;
      } else {
        out += c;
      }
    }
    if (!next.replacement.empty()) after_space = next.replacement.ends_with(' ');
    if (!remove_extra_whitespaces_) after_space = false;
  }
  while (remove_extra_whitespaces_ && out.ends_with(space_)) out.resize(out.size() - space_.size());
  return out;
}

}  // namespace atelier::text
