// The pictures that a request came with, as files, until a job owns them.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

#include "server/job_store.h"

namespace atelier::server {

class JobInputs {
 public:
  // folder: of the store's pictures; id: of the job that is to be. Both outlive it.
  JobInputs(JobStore& store, std::filesystem::path folder, std::string id);
  // Removes what was kept, unless the job was accepted.
  ~JobInputs();
  JobInputs(const JobInputs&) = delete;
  JobInputs& operator=(const JobInputs&) = delete;

  const std::string& id() const { return id_; }
  // The file where workers find the picture of this field; a store that other hosts share holds it, too.
  // Throws what the store throws.
  std::string keep(std::string_view field, const std::string& bytes);
  // From now on they go with the job.
  void accepted() { are_nobodys_ = false; }

 private:
  JobStore& store_;
  const std::filesystem::path folder_;
  const std::string id_;
  bool are_nobodys_ = false;
};

}  // namespace atelier::server
