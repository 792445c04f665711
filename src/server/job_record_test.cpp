// What clients are shown of a job.
#include "server/job_record.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "request/file_inputs.h"

namespace atelier::server {
namespace {

TEST(JobRecord_IsShown, WithoutFilesOfThisMachineAndTheirDigests) {
  request::Request request;
  request.prompt = "a fox";
  request.lora = {"/secret/a.safetensors"};
  request.lora_digest = {"0abc"};
  for (const auto& input : request::kFileInputs) {
    request.*input.file = "/secret/" + std::string(input.name);
    request.*input.digest = "0abc";
  }
  request.reference_images = {"/secret/reference"};
  request.reference_images_sha256 = {"0abc"};
  const std::string shown = shown_job({.id = "job_1", .requests = {request}}).at("parameters").dump();
  EXPECT_NE(shown.find("a fox"), std::string::npos) << shown;
  EXPECT_EQ(shown.find("secret"), std::string::npos) << shown;
  EXPECT_EQ(shown.find("0abc"), std::string::npos) << shown;
}

}  // namespace
}  // namespace atelier::server
