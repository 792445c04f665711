#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "server/job_store.h"

namespace atelier::server {

std::string network_file_system(int64_t magic) {
  constexpr std::pair<uint32_t, const char*> kNetworks[] = {
      {0x6969, "NFS"},      {0xFF534D42, "CIFS"}, {0xFE534D42, "SMB2"},   {0x517B, "SMB"},
      {0x00C36400, "Ceph"}, {0x5346414F, "AFS"},  {0x0BD00BD0, "Lustre"}, {0x01021997, "9P"},
      {0x73757245, "Coda"}, {0x47504653, "GPFS"}, {0x19830326, "BeeGFS"}, {0x7461636F, "OCFS2"},
      {0x01161970, "GFS2"}, {0xAAD7AAEA, "PanFS"}};
  for (const auto& [number, name] : kNetworks) {
    if (static_cast<uint32_t>(magic) == number) return name;
  }
  return {};
}

void remove_strangers(const std::filesystem::path& folder,
                      const std::function<bool(const std::string& id)>& is_known) {
  std::vector<std::filesystem::path> strangers;
  std::error_code error;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (at->is_directory(error) && !is_known(at->path().filename())) strangers.push_back(at->path());
  }
  for (const auto& path : strangers) std::filesystem::remove_all(path, error);
  if (!strangers.empty())
    log::info(str(strangers.size(), " folders of pictures that no job has were removed"));
}

StoreFolder::StoreFolder(std::filesystem::path folder) : path_(std::move(folder)) {
  const auto fail = [&](const std::string& why) {
    throw Error(Kind::kUsage,
                str("data_dir ", path_.string(), " ", why, "; choose another folder with --data_dir"));
  };
  std::error_code error;
  std::filesystem::create_directories(path_ / "pictures", error);
  if (error) fail(str("cannot be made: ", error.message()));
  path_ = std::filesystem::canonical(path_);
  if (::chmod(path_.c_str(), 0700) != 0) fail(str("cannot be made private: ", std::strerror(errno)));
  struct statfs system {};
  if (::statfs(path_.c_str(), &system) != 0) fail(str("cannot be looked at: ", std::strerror(errno)));
  if (const auto name = network_file_system(system.f_type); !name.empty())
    fail(str("is on a network file system (", name, "), whose locks are not to be trusted"));
  lock_ = ::open((path_ / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ < 0) fail(str("cannot be written: ", std::strerror(errno)));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    fail("is used by another server");
  }
}

StoreFolder::~StoreFolder() {
  ::close(lock_);
}

}  // namespace atelier::server
