// Locks on bytes far behind the end of the ledger, one for each node: they stand in no writer's way.
#include "jobs/folder_claim.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"
#include "jobs/ledger.h"

namespace atelier::jobs {
namespace {

constexpr off_t kNodes = 1 << 20;

}  // namespace

FolderClaim::FolderClaim(const std::filesystem::path& folder, int node, int nodes) {
  const auto file = folder / kLedgerName;
  fd_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (fd_ < 0) return;  // the ledger itself says why
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = kFirstClaim + (nodes > 1 ? node : 0);
  lock.l_len = nodes > 1 ? 1 : kNodes;
  if (::fcntl(fd_, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES)) return;
  ::close(fd_);
  throw Error(Kind::kUsage,
              str("another run is drawing into ", folder.string(), nodes > 1 ? str(" as node ", node) : "",
                  "; wait for its end, or choose another output_dir"));
}

FolderClaim::~FolderClaim() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace atelier::jobs
