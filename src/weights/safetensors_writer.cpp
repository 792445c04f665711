#include "weights/safetensors_writer.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/check.h"
#include "base/error.h"
#include "base/json.h"
#include "base/quote.h"

namespace atelier::weights {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void fail(const fs::path& file, int error) {
  const Kind kind = error == ENOSPC || error == EDQUOT ? Kind::kCapacity : Kind::kUsage;
  throw Error(kind, str("cannot write ", file.string(), ": ", std::strerror(error),
                        kind == Kind::kCapacity ? "; free some space and run again"
                                                : "; choose another folder or mend its permissions"));
}

std::string header_of(std::span<const TensorSpec> specs, const FileMetadata& metadata) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::set<std::string_view> names;
  int64_t offset = 0;
  for (const auto& p : specs) {
    ENSURE(names.insert(p.name).second && p.name != "__metadata__");
    const int64_t end = offset + p.bytes();
    header[p.name] = {{"dtype", name_of(p.dtype)}, {"shape", p.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = specs.empty() && metadata.empty() ? "{}" : header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors begin aligned
  return text;
}

void check_room(const fs::path& file, int64_t bytes) {
  struct statvfs disk = {};
  if (::statvfs(file.parent_path().empty() ? "." : file.parent_path().c_str(), &disk) != 0) return;
  const auto room = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
  if (room < bytes) {
    throw Error(Kind::kCapacity, str("cannot write ", file.string(), ": it needs ", size_text(bytes),
                                     ", the disk has ", size_text(room), " left; free some space"));
  }
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(fs::path path, std::span<const TensorSpec> specs,
                                     const FileMetadata& metadata)
    : path_(std::move(path)), temporary_(path_.string() + str(".", ::getpid(), ".tmp")) {
  const std::string header = header_of(specs, metadata);
  for (const auto& p : specs) missing_ += p.bytes();
  const int64_t tensors = missing_;
  std::error_code ignored;
  if (path_.has_parent_path()) fs::create_directories(path_.parent_path(), ignored);
  const auto length = static_cast<uint64_t>(header.size());
  check_room(path_, tensors + static_cast<int64_t>(length) + 8);
  fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(path_, errno);
  missing_ += static_cast<int64_t>(length) + 8;
  try {
    append(std::as_bytes(std::span(&length, 1)));
    append(std::as_bytes(std::span(header)));
  } catch (...) {
    ::close(fd_);
    ::unlink(temporary_.c_str());
    throw;
  }
}

SafetensorsWriter::~SafetensorsWriter() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void SafetensorsWriter::append(std::span<const std::byte> bytes) {
  ENSURE(fd_ >= 0 && static_cast<int64_t>(bytes.size()) <= missing_);
  missing_ -= static_cast<int64_t>(bytes.size());
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path_, errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void SafetensorsWriter::finish() {
  ENSURE(fd_ >= 0 && missing_ == 0);
  int error = ::fsync(fd_) == 0 ? 0 : errno;
  if (::close(std::exchange(fd_, -1)) != 0 && error == 0) error = errno;
  if (error == 0 && ::rename(temporary_.c_str(), path_.c_str()) != 0) error = errno;
  if (error == 0) return;
  ::unlink(temporary_.c_str());
  fail(path_, error);
}

void write_safetensors(const fs::path& path, std::span<const Whole> tensors, const FileMetadata& metadata) {
  std::vector<const Whole*> order;
  for (const auto& t : tensors) order.push_back(&t);
  std::stable_sort(order.begin(), order.end(),
                   [](auto* a, auto* b) { return size_of(a->spec.dtype) > size_of(b->spec.dtype); });
  std::vector<TensorSpec> specs;
  for (const auto* t : order) {
    ENSURE(static_cast<int64_t>(t->bytes.size()) == t->spec.bytes());
    specs.push_back(t->spec);
  }
  SafetensorsWriter writer(path, specs, metadata);
  for (const auto* t : order) writer.append(t->bytes);
  writer.finish();
}

ShardedWriter::ShardedWriter(Options options, std::vector<TensorSpec> specs)
    : options_(std::move(options)), specs_(std::move(specs)) {
  int64_t total = 0, in_shard = 0;
  for (size_t i = 0; i < specs_.size(); ++i) {
    const int64_t bytes = specs_[i].bytes();
    if (i == 0 || in_shard + bytes > options_.max_shard_bytes) {
      first_.push_back(static_cast<int64_t>(i));
      in_shard = 0;
    }
    in_shard += bytes;
    total += bytes;
  }
  if (first_.empty()) first_.push_back(0);
  std::error_code ignored;
  fs::create_directories(options_.folder, ignored);
  check_room(options_.folder / (options_.stem + ".safetensors"), total);
}

ShardedWriter::~ShardedWriter() = default;

std::string ShardedWriter::shard_name(int shard) const {
  if (shards() == 1) return options_.stem + ".safetensors";
  char number[32];
  std::snprintf(number, sizeof number, "-%05d-of-%05d", shard + 1, shards());
  return options_.stem + number + ".safetensors";
}

std::span<const TensorSpec> ShardedWriter::shard_specs(int shard) const {
  const auto begin = static_cast<size_t>(first_[static_cast<size_t>(shard)]);
  const auto end =
      shard + 1 < shards() ? static_cast<size_t>(first_[static_cast<size_t>(shard) + 1]) : specs_.size();
  return std::span(specs_).subspan(begin, end - begin);
}

void ShardedWriter::open_shard() {
  ENSURE(next_ < shards());
  current_ = std::make_unique<SafetensorsWriter>(options_.folder / shard_name(next_), shard_specs(next_),
                                                 FileMetadata{{"format", "pt"}});
  ++next_;
}

void ShardedWriter::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    if (!current_) open_shard();
    const auto n = std::min<size_t>(bytes.size(), static_cast<size_t>(current_->missing()));
    current_->append(bytes.first(n));
    bytes = bytes.subspan(n);
    if (current_->missing() == 0) {
      current_->finish();
      current_.reset();
    }
  }
}

void ShardedWriter::finish() {
  ENSURE(!current_ || current_->missing() == 0);
  while (current_ || next_ < shards()) {  // shards of empty tensors only
    if (!current_) open_shard();
    current_->finish();
    current_.reset();
  }
  const fs::path index = options_.folder / (options_.stem + ".safetensors.index.json");
  if (shards() == 1) {
    std::error_code ignored;
    fs::remove(index, ignored);  // a stale one would win over the new file
    return;
  }
  Json map = Json::object();
  int64_t total = 0;
  for (int shard = 0; shard < shards(); ++shard) {
    for (const auto& p : shard_specs(shard)) {
      map[p.name] = shard_name(shard);
      total += p.bytes();
    }
  }
  write_json(index, {{"metadata", {{"total_size", total}}}, {"weight_map", map}});
}

}  // namespace atelier::weights
