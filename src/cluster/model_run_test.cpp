// Whole runs with a small model: pictures on disk, their metadata, failures, and several processes.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/digest.h"
#include "base/error.h"
#include "base/files.h"
#include "cluster/batch_run.h"
#include "cluster/testing.h"
#include "media/image.h"

namespace atelier::cluster {
namespace {

namespace fs = std::filesystem;
const fs::path kModel = "tests/goldens/flux_dev/model";

class ModelRun : public ::testing::Test {
 public:
  ~ModelRun() override {
    ::unsetenv("ATELIER_FAULT");
    fs::remove_all(folder_);
  }

 protected:
  ModelRun() {
    std::string name = (fs::temp_directory_path() / "atelier-run-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    job_.engine.model.folder = kModel;
    job_.pool.max_retries = 1;
    job_.sink.folder = folder_ / "out";
  }

  static request::Request request(int i) {
    request::Request request{.prompt = str("a fox, number ", i), .index = i, .name = str("p/", i, ".png")};
    request.height = 32, request.width = 48, request.num_inference_steps = 2, request.guidance_scale = 3.5;
    request.max_sequence_length = 16, request.seed = 10 + i;
    return request;
  }

  RunResult run(const std::vector<std::vector<request::Request>>& batches, const std::stop_token& stop = {}) {
    const RunEvents events{
        .on_step = [this](const StepDone& e) { steps_.push_back(e.step); },
        .on_note = [this](const RequestNote& e) { notes_.push_back(e.request.name + ": " + e.note); },
        .on_generated = [this](const BatchGenerated& e) { step_ms_ += e.times.step_ms.size(); },
        .on_stored =
            [this](const ArtifactStored& e) { stored_.push_back(e), names_.push_back(e.request.name); }};
    return run_batches(job_, batches, events, stop);
  }

  fs::path folder_;
  Job job_;
  std::vector<int> steps_;
  size_t step_ms_ = 0;
  std::vector<ArtifactStored> stored_;
  std::vector<std::string> names_, notes_;
};

TEST_F(ModelRun, WritesPicturesWithTheirSettingsInside) {
  const auto outcome = run({{request(0), request(1)}, {request(2)}});
  EXPECT_EQ(names_, (std::vector<std::string>{"p/0.png", "p/1.png", "p/2.png"}));
  EXPECT_EQ(steps_, (std::vector{1, 2, 1, 2}));
  ASSERT_EQ(outcome.ranks.size(), 1u);
  EXPECT_EQ(step_ms_, 4u);
  const std::string bytes = read_file(job_.sink.folder / "p/1.png");
  EXPECT_EQ(media::decode(bytes).width, 48);
  EXPECT_EQ(stored_[1].stored.record.sha256, sha256(bytes));
  EXPECT_EQ(stored_[1].stored.record.bytes, bytes.size());
}

// What is written into a file is what the ledger keeps of it.
TEST_F(ModelRun, ThePicturesMetadataAreItsLook) {
  job_.sink.record = {{"model", "tiny"}, {"pipefusion", "stages 1"}};
  run({{request(0)}});
  const Json look = request::look(stored_.at(0).request, job_.sink.record);
  const auto metadata = media::read_metadata(read_file(job_.sink.folder / "p/0.png"));
  ASSERT_TRUE(metadata);
  EXPECT_EQ(metadata->values.size(), look.size());
  for (const auto& [key, value] : metadata->values) {
    ASSERT_TRUE(look.contains(key)) << key;
    EXPECT_EQ(value, look[key].is_string() ? look[key].get<std::string>() : look[key].dump()) << key;
  }
  EXPECT_EQ(look["seed"], 10);
}

TEST_F(ModelRun, TellsWhatAPromptLosesBeforeItsPictureIsThere) {
  auto wordy = request(1);
  for (int i = 0; i < 12; ++i) wordy.prompt += " and another fox";
  run({{request(0), wordy}});
  ASSERT_EQ(notes_.size(), 1u);
  EXPECT_TRUE(notes_[0].starts_with("p/1.png: the prompt is cut to 16 tokens for text_encoder_2"))
      << notes_[0];
  EXPECT_TRUE(notes_[0].ends_with("another fox\"")) << notes_[0];
}

TEST_F(ModelRun, AnItemThatCannotBeDrawnFailsAlone) {
  auto bad = request(1);
  bad.seed.reset();
  const auto outcome = run({{request(0)}, {bad}, {request(2)}});
  ASSERT_EQ(outcome.failures.size(), 1u);
  EXPECT_EQ(outcome.failures[0].request.name, "p/1.png");
  EXPECT_EQ(outcome.failures[0].attempts, 1);
  EXPECT_EQ(names_.size(), 2u);
}

TEST_F(ModelRun, AFileInTheWayOfAFolderFailsItsItem) {
  fs::create_directories(job_.sink.folder);
  write_file_atomically(job_.sink.folder / "p", "no folder");
  auto other = request(1);
  other.name = "1.png";
  const auto outcome = run({{request(0)}, {other}});
  ASSERT_EQ(outcome.failures.size(), 1u);
  EXPECT_EQ(names_, std::vector<std::string>{"1.png"});
}

TEST_F(ModelRun, AStopRequestEndsTheRunAtOnce) {
  std::stop_source stop;
  const RunEvents events{.on_step = [&](const StepDone&) { stop.request_stop(); }};
  try {
    run_batches(job_, {{request(0)}, {request(1)}}, events, stop.get_token());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kInterrupted);
  }
  EXPECT_FALSE(fs::exists(job_.sink.folder / "p/1.png"));
}

TEST_F(ModelRun, ABrokenModelIsRefusedWithItsKind) {
  job_.engine.model.folder = folder_;
  for (const int data : {1, 2}) {
    job_.engine.layout.data = data;
    try {
      run({{request(0)}, {request(1)}});
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), Kind::kUsage);
      EXPECT_NE(std::string(e.what()).find("model_index.json"), std::string::npos);
    }
  }
}

TEST_F(ModelRun, DrawsTheSamePicturesOnTwoGroupsAndThroughAKill) {
  const std::vector<std::vector<request::Request>> batches{{request(0)}, {request(1)}, {request(2)}};
  run(batches);
  const fs::path alone = job_.sink.folder;
  const auto expect_same = [&](const char* folder, int restarts) {
    names_.clear();
    job_.sink.folder = folder_ / folder;
    EXPECT_EQ(run(batches).restarts, restarts);
    std::sort(names_.begin(), names_.end());
    EXPECT_EQ(names_, (std::vector<std::string>{"p/0.png", "p/1.png", "p/2.png"}));
    for (const auto& name : names_)
      EXPECT_EQ(read_file(alone / name), read_file(job_.sink.folder / name)) << name;
  };
  {
    const Variable fault("ATELIER_FAULT", "0:step:1:kill");
    expect_same("killed", 1);
  }
  job_.engine.layout.data = 2;
  expect_same("two", 0);
}

}  // namespace
}  // namespace atelier::cluster
