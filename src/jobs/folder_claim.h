// One run at a time in an output folder: two would draw the same pictures over each other.
#pragma once
#include <sys/types.h>

#include <filesystem>

namespace atelier::jobs {

// Claims are locks of bytes of the ledger, far behind its end: this one is node 0's. What lies before
// is for writers.
inline constexpr off_t kFirstClaim = off_t{1} << 40;

// Holds a node's share of a folder while it lives; the system gives it back when the process dies.
class FolderClaim {
 public:
  // Node `node` of `nodes` runs that share the prompts. Throws Error(kUsage) where another run that lives has
  // this share, or all of it. File systems that know no locks are trusted.
  FolderClaim(const std::filesystem::path& folder, int node, int nodes);
  ~FolderClaim();
  FolderClaim(const FolderClaim&) = delete;
  FolderClaim& operator=(const FolderClaim&) = delete;

 private:
  int fd_ = -1;
};

}  // namespace atelier::jobs
