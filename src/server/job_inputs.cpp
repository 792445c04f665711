#include "server/job_inputs.h"

#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"

namespace atelier::server {

JobInputs::JobInputs(JobStore& store, std::filesystem::path folder, std::string id)
    : store_(store), folder_(std::move(folder)), id_(std::move(id)) {}

JobInputs::~JobInputs() {
  if (!are_nobodys_) return;
  try {
    store_.remove(id_);
  } catch (const std::exception& e) {  // the next start looks for what is nobody's
    log::warning(str("job=", id_, " was not accepted, and its pictures stay for now: ", e.what()));
  }
}

std::string JobInputs::keep(std::string_view field, const std::string& bytes) {
  const std::string name = str("input_", field);
  const auto file = folder_ / id_ / name;
  are_nobodys_ = true;
  write_file_atomically(file, bytes);
  if (store_.is_shared()) store_.put_picture(id_, name, bytes);
  return file.string();
}

}  // namespace atelier::server
