// One file of the cache's blobs folder: fetched with resume, checked, put in place at once. Inside of the
// room.
#pragma once
#include <openssl/evp.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace atelier::hub {

// Digest of a file as the hub names it: sha256 of the bytes (64 digits), or git's sha1 of a blob (40 digits).
class Digest {
 public:
  // Nothing is computed for names of another length.
  Digest(std::string_view name, int64_t file_bytes);
  void add(std::span<const std::byte> bytes);
  // Whether the name is that of the bytes; true where nothing is known.
  bool matches();

 private:
  std::string name_;
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

// A download in progress: blobs/<name>.incomplete, locked against other processes.
class Blob {
 public:
  // Waits for the lock. Throws Error(kUsage) if the folder is not writable.
  Blob(std::filesystem::path path, int64_t bytes);
  Blob(const Blob&) = delete;
  Blob& operator=(const Blob&) = delete;
  ~Blob();

  // Bytes that are there already; their digest is computed now.
  int64_t size() const { return size_; }
  void append(std::span<const std::byte> bytes);
  void restart();
  // Whether another process finished it while this one waited.
  bool is_done() const { return is_done_; }
  // Checks size and digest and gives the file its final name. False: the bytes are wrong and were thrown
  // away.
  bool finish();

 private:
  void resume();

  std::filesystem::path path_, incomplete_;
  int64_t bytes_, size_ = 0;
  int fd_ = -1;
  bool is_done_ = false;
  Digest digest_;
};

}  // namespace atelier::hub
