// The JSON header of a safetensors file: a strict event parser (no tree, no recursion) and the checks of its
// promises.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/quote.h"
#include "weights/safetensors.h"

namespace atelier::weights {
namespace {

constexpr size_t kMaxDims = 32;

// Receives nlohmann's events. Levels: 1 the header, 2 a tensor or __metadata__, 3 a list of numbers.
class HeaderReader {
 public:
  HeaderReader(std::string_view file, Entries& entries, FileMetadata& metadata)
      : file_(file), entries_(entries), metadata_(metadata) {}

  using number_integer_t = nlohmann::json::number_integer_t;
  using number_unsigned_t = nlohmann::json::number_unsigned_t;
  using number_float_t = nlohmann::json::number_float_t;
  using string_t = nlohmann::json::string_t;
  using binary_t = nlohmann::json::binary_t;

  bool null() {
    if (level_ == 1 && name_ == "__metadata__") return true;
    return skip() || unexpected("null");
  }
  bool boolean(bool) { return skip() || unexpected("true or false"); }
  bool binary(binary_t&) { return unexpected("binary data"); }
  bool number_float(number_float_t, const string_t& text) {
    if (skip()) return true;
    fail(str(where(), "the number ", in_quotes(text), " is not a whole number in range"));
  }
  bool number_integer(number_integer_t value) {
    if (skip()) return true;
    fail(str(where(), "the number ", value, " is negative"));
  }

  bool number_unsigned(number_unsigned_t value) {
    if (skip()) return true;
    if (level_ != 3) unexpected("a number");
    if (value > static_cast<uint64_t>(INT64_MAX)) fail(str(where(), "the number ", value, " is too large"));
    if (numbers_.size() == kMaxDims) fail(str(where(), "more than ", kMaxDims, " numbers"));
    numbers_.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool string(string_t& value) {
    if (skip()) return true;
    if (level_ != 2) unexpected("text");
    if (in_metadata_) {
      if (!metadata_.emplace(field_, value).second)
        fail(str("__metadata__ names ", in_quotes(field_), " twice"));
      return true;
    }
    if (field_ != "dtype") unexpected("text");
    entry_.dtype = dtype(value);
    return true;
  }

  bool start_object(size_t) {
    if (skip_into()) return true;
    if (level_ >= 2) unexpected("an object");
    ++level_;
    in_metadata_ = level_ == 2 && name_ == "__metadata__";
    entry_ = {};
    seen_ = {};
    return true;
  }

  bool key(string_t& value) {
    if (depth_ > 0) return true;
    if (level_ == 1) {
      name_ = value;
      field_.clear();
      const bool fresh =
          name_ == "__metadata__" ? !std::exchange(has_metadata_, true) : !entries_.contains(name_);
      if (!fresh) fail(str("the header names ", in_quotes(name_), " twice"));
      return true;
    }
    field_ = value;
    if (in_metadata_) return true;
    constexpr std::array<std::string_view, 3> kFields{"dtype", "shape", "data_offsets"};
    const auto at = std::find(kFields.begin(), kFields.end(), field_);
    is_unknown_ = at == kFields.end();
    if (is_unknown_) return true;
    if (std::exchange(seen_[static_cast<size_t>(at - kFields.begin())], true)) {
      fail(str(tensor(), "field ", field_, " stands there twice"));
    }
    return true;
  }

  bool end_object() {
    if (skip_out()) return true;
    if (level_-- == 1 || std::exchange(in_metadata_, false)) return true;
    if (!seen_[0] || !seen_[1] || !seen_[2]) fail(str(tensor(), "lacks dtype, shape or data_offsets"));
    entries_.emplace(name_, std::move(entry_));
    return true;
  }

  bool start_array(size_t) {
    if (skip_into()) return true;
    if (level_ != 2 || in_metadata_ || field_ == "dtype") unexpected("a list");
    ++level_;
    numbers_.clear();
    return true;
  }

  bool end_array() {
    if (skip_out()) return true;
    --level_;
    if (field_ == "shape") {
      entry_.shape = numbers_;
    } else if (numbers_.size() != 2 || numbers_[0] > numbers_[1]) {
      fail(str(tensor(), "data_offsets must be two numbers, begin and end"));
    } else {
      entry_.offset = numbers_[0];
      entry_.bytes = numbers_[1] - numbers_[0];
    }
    return true;
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) {
    fail(str("the header is not JSON (byte ", position, "); the file is damaged: download it again"));
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(Kind::kCheckpoint, str(file_, ": ", what));
  }

 private:
  // The value of a field that this format does not know is passed over, as the reference library does. True:
  // the event belongs to it.
  bool skip() { return depth_ > 0 || std::exchange(is_unknown_, false); }
  bool skip_into() {
    const bool skips = skip();
    depth_ += skips ? 1 : 0;
    return skips;
  }
  bool skip_out() {
    if (depth_ == 0) return false;
    --depth_;
    return true;
  }
  std::string tensor() const { return str("tensor ", in_quotes(name_), ": "); }
  std::string where() const { return level_ < 2 ? std::string() : str(tensor(), in_quotes(field_), ": "); }
  [[noreturn]] bool unexpected(std::string_view what) const {
    fail(str("the header is not that of a safetensors file: ", where(), "unexpected ", what));
  }
  DType dtype(const std::string& name) const {
    const auto found = find_dtype(name);
    if (!found) fail(str(tensor(), "type ", in_quotes(name), " is not supported"));
    return *found;
  }

  std::string_view file_;
  Entries& entries_;
  FileMetadata& metadata_;
  int level_ = 0;
  bool in_metadata_ = false, has_metadata_ = false;
  bool is_unknown_ = false;  // the next value is that of an unknown field
  int64_t depth_ = 0;        // lists and objects open inside of one
  std::string name_, field_;
  TensorEntry entry_;
  std::array<bool, 3> seen_{};
  std::vector<int64_t> numbers_;
};

// Sizes against shapes, the file's length and each other.
void check_places(std::string_view file, const Entries& entries, int64_t data_bytes) {
  const auto fail = [&](const std::string& what) { throw Error(Kind::kCheckpoint, str(file, ": ", what)); };
  std::vector<const Entries::value_type*> order;
  order.reserve(entries.size());
  int64_t needed = 0;
  for (const auto& item : entries) {
    const auto& [name, entry] = item;
    const auto bytes = checked_bytes(entry.dtype, entry.shape);
    if (!bytes) {
      fail(str("tensor ", in_quotes(name), ": shape ", shape_text(entry.shape), " of ", name_of(entry.dtype),
               " overflows or does not fill whole bytes"));
    }
    if (*bytes != entry.bytes) {
      fail(str("tensor ", in_quotes(name), ": shape ", shape_text(entry.shape), " of ", name_of(entry.dtype),
               " needs ", *bytes, " bytes, data_offsets give ", entry.bytes));
    }
    needed = std::max(needed, entry.offset + entry.bytes);
    order.push_back(&item);
  }
  if (needed > data_bytes) {
    fail(str("truncated: the header promises ", needed, " bytes of tensors, the file has ", data_bytes,
             "; download it again"));
  }
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) {
    return std::pair(a->second.offset, a->second.bytes) < std::pair(b->second.offset, b->second.bytes);
  });
  int64_t end = 0;
  for (const auto* item : order) {
    if (item->second.offset != end) {
      fail(str("tensor ", in_quotes(item->first), ": its bytes begin at ", item->second.offset,
               item->second.offset < end ? ", inside another tensor that ends at "
                                         : ", behind a hole that begins at ",
               end));
    }
    end += item->second.bytes;
  }
  if (end != data_bytes)
    fail(str(data_bytes - end, " bytes at the end belong to no tensor; download it again"));
}

}  // namespace

void parse_header(std::string_view file, std::string_view header, int64_t data_bytes, Entries& entries,
                  FileMetadata& metadata) {
  HeaderReader reader(file, entries, metadata);
  if (header.empty() || header.front() != '{')
    reader.fail("the header is not a JSON object; not a safetensors file");
  nlohmann::json::sax_parse(header.begin(), header.end(), &reader);
  check_places(file, entries, data_bytes);
  for (auto& [name, entry] : entries) {
    entry.offset += 8 + static_cast<int64_t>(header.size());
  }
}

}  // namespace atelier::weights
