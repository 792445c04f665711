#include "weights/rename.h"

#include <algorithm>
#include <memory>

#include "base/error.h"
#include "base/quote.h"
#include "weights/checkpoint_store.h"
#include "weights/safetensors_writer.h"

namespace atelier::weights {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kPiece = 16 << 20;  // bytes that are copied at a time

struct Placed {
  const TensorFile* file;
  const std::string* name;
  const TensorEntry* entry;
};

std::vector<Placed> in_order(const Shards& shards) {
  std::vector<Placed> all;
  for (const auto& file : shards.files) {
    const auto begin = static_cast<std::ptrdiff_t>(all.size());
    for (const auto& [name, entry] : file->entries()) all.push_back({file.get(), &name, &entry});
    // Empty tensors share their place with the next one.
    std::stable_sort(all.begin() + begin, all.end(), [](const Placed& a, const Placed& b) {
      return std::pair(a.entry->offset, a.entry->bytes) < std::pair(b.entry->offset, b.entry->bytes);
    });
  }
  return all;
}

// What a header says in text, as far as it says nothing of single tensors.
FileMetadata text_of(const Shards& shards) {
  if (shards.files.size() != 1) return {{"format", "pt"}};
  const auto& text = shards.files.front()->metadata();
  if (text.contains("_quantization_metadata")) {
    throw Error(Kind::kCheckpoint,
                str(shards.place.string(),
                    ": its header names layers by their tensors (_quantization_metadata), "
                    "which would be wrong under other names; take a checkpoint that is not "
                    "quantised in this form"));
  }
  return text;
}

void check_plain(const Shards& shards) {
  for (const auto& file : shards.files) {
    for (const auto& [name, entry] : file->entries()) {
      if (is_plain(entry.dtype)) continue;
      throw Error(Kind::kCheckpoint,
                  str(file->path().string(), ": ", in_quotes(name), " is ", name_of(entry.dtype),
                      ", which safetensors cannot hold; convert a checkpoint of plain numbers"));
    }
  }
}

// Append the bytes of all tensors to a writer of either kind.
template <class Writer>
void copy(std::span<const Placed> tensors, Writer& writer) {
  std::vector<std::byte> piece(static_cast<size_t>(kPiece));
  for (const auto& t : tensors) {
    for (int64_t at = 0; at < t.entry->bytes; at += kPiece) {
      const auto part = std::span(piece).first(static_cast<size_t>(std::min(kPiece, t.entry->bytes - at)));
      t.file->read(t.entry->offset + at, part);
      writer.append(part);
    }
  }
  writer.finish();
}

bool is_same_place(const fs::path& a, const fs::path& b) {
  std::error_code none;
  return fs::equivalent(a, b, none);
}

}  // namespace

std::vector<std::string> tensor_names(const fs::path& from) {
  const auto shards = open_shards(from);
  std::vector<std::string> names;
  for (const auto& t : in_order(shards)) names.push_back(*t.name);
  return names;
}

Renamed rename_tensors(const fs::path& from, const RenameOptions& options,
                       const std::function<std::string(const std::string&)>& new_name) {
  const auto shards = open_shards(from);
  check_plain(shards);
  const auto tensors = in_order(shards);
  std::vector<TensorSpec> specs;
  Renamed made;
  for (const auto& t : tensors) {
    specs.push_back({new_name(*t.name), t.entry->dtype, t.entry->shape});
    made.bytes += t.entry->bytes;
  }
  made.tensors = std::ssize(tensors);
  const auto is_read = [&](const auto& file) { return is_same_place(file->path(), options.to); };
  if (is_same_place(from, options.to) || std::any_of(shards.files.begin(), shards.files.end(), is_read))
    throw Error(Kind::kUsage, str(options.to.string(), " is what is read; name another place"));
  if (options.to.extension() == ".safetensors") {
    SafetensorsWriter writer(options.to, specs, text_of(shards));
    copy(tensors, writer);
    made.files.push_back(options.to);
    return made;
  }
  text_of(shards);
  ShardedWriter writer(
      {.folder = options.to, .stem = "diffusion_pytorch_model", .max_shard_bytes = options.max_shard_bytes},
      specs);
  copy(tensors, writer);
  for (const auto& item : fs::directory_iterator(options.to)) {
    if (item.path().extension() == ".safetensors") made.files.push_back(item.path());
  }
  std::sort(made.files.begin(), made.files.end());
  return made;
}

}  // namespace atelier::weights
