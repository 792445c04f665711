// Whole runs with a small model: pictures on disk, their metadata, failures, and several processes.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/digest.h"
#include "base/error.h"
#include "base/files.h"
#include "cluster/job.h"
#include "media/image.h"

namespace atelier::cluster {
namespace {

namespace fs = std::filesystem;
const fs::path kModel = "tests/goldens/flux_dev/model";

class RunJob : public ::testing::Test {
 protected:
  RunJob() {
    std::string name = (fs::temp_directory_path() / "atelier-run-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    job_.engine.model.folder = kModel;
    job_.sink.folder = folder_ / "out";
  }
  ~RunJob() override {
    ::unsetenv("ATELIER_FAULT");
    fs::remove_all(folder_);
  }

  static request::Request request(int i) {
    request::Request request{.prompt = str("a fox, number ", i), .index = i, .name = str("p/", i, ".png")};
    request.height = 32, request.width = 48, request.num_inference_steps = 2, request.guidance_scale = 3.5;
    request.max_sequence_length = 16, request.seed = 10 + i;
    return request;
  }

  RunResult run(const std::vector<std::vector<request::Request>>& batches, const std::stop_token& stop = {}) {
    jobs::Queue queue(batches, 1);
    const Events events{
        .on_step = [this](int, int step, int) { steps_.push_back(step); },
        .on_drawn = [this](int, const BatchTimes& times) { step_ms_ += times.step_ms.size(); },
        .on_picture =
            [this](const Finished& f) { finished_.push_back(f), names_.push_back(f.request.name); }};
    return run_job(job_, queue, events, stop);
  }

  fs::path folder_;
  Job job_;
  std::vector<int> steps_;
  size_t step_ms_ = 0;
  std::vector<Finished> finished_;
  std::vector<std::string> names_;
};

TEST_F(RunJob, WritesPicturesWithTheirSettingsInside) {
  const auto outcome = run({{request(0), request(1)}, {request(2)}});
  EXPECT_EQ(names_, (std::vector<std::string>{"p/0.png", "p/1.png", "p/2.png"}));
  EXPECT_EQ(steps_, (std::vector{1, 2, 1, 2}));
  ASSERT_EQ(outcome.ranks.size(), 1u);
  EXPECT_EQ(step_ms_, 4u);
  const std::string bytes = read_file(job_.sink.folder / "p/1.png");
  EXPECT_EQ(media::decode(bytes).width, 48);
  EXPECT_EQ(finished_[1].stored.sha256, sha256(bytes));
  EXPECT_EQ(finished_[1].stored.bytes, bytes.size());
}

// What is written into a file is what the ledger keeps of it.
TEST_F(RunJob, ThePicturesMetadataAreItsLook) {
  job_.sink.record = {{"model", "tiny"}, {"pipefusion", "stages 1"}};
  run({{request(0)}});
  const Json look = request::look(finished_.at(0).request, job_.sink.record);
  const auto metadata = media::read_metadata(read_file(job_.sink.folder / "p/0.png"));
  ASSERT_TRUE(metadata);
  EXPECT_EQ(metadata->values.size(), look.size());
  for (const auto& [key, value] : metadata->values) {
    ASSERT_TRUE(look.contains(key)) << key;
    EXPECT_EQ(value, look[key].is_string() ? look[key].get<std::string>() : look[key].dump()) << key;
  }
  EXPECT_EQ(look["seed"], 10);
}

TEST_F(RunJob, AnItemThatCannotBeDrawnFailsAlone) {
  auto bad = request(1);
  bad.seed.reset();
  const auto outcome = run({{request(0)}, {bad}, {request(2)}});
  ASSERT_EQ(outcome.failures.size(), 1u);
  EXPECT_EQ(outcome.failures[0].request.name, "p/1.png");
  EXPECT_EQ(outcome.failures[0].attempts, 1);
  EXPECT_EQ(names_.size(), 2u);
}

TEST_F(RunJob, AFileInTheWayOfAFolderFailsItsItem) {
  fs::create_directories(job_.sink.folder);
  write_file_atomically(job_.sink.folder / "p", "no folder");
  auto other = request(1);
  other.name = "1.png";
  const auto outcome = run({{request(0)}, {other}});
  ASSERT_EQ(outcome.failures.size(), 1u);
  EXPECT_EQ(names_, std::vector<std::string>{"1.png"});
}

TEST_F(RunJob, AStopRequestInterruptsBetweenSteps) {
  std::stop_source stop;
  jobs::Queue queue({{request(0)}, {request(1)}}, 1);
  const Events events{.on_step = [&](int, int, int) { stop.request_stop(); }};
  try {
    run_job(job_, queue, events, stop.get_token());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kInterrupted);
  }
  EXPECT_FALSE(fs::exists(job_.sink.folder / "p/1.png"));
}

TEST_F(RunJob, ABrokenModelIsRefusedWithItsKind) {
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

TEST_F(RunJob, TwoProcessesDrawTheSamePicturesThroughAKill) {
  run({{request(0)}, {request(1)}, {request(2)}});
  const fs::path alone = job_.sink.folder;
  names_.clear();
  job_.engine.layout.data = 2;
  job_.sink.folder = folder_ / "two";
  ::setenv("ATELIER_FAULT", "1:step:1:kill", 1);
  const auto outcome = run({{request(0)}, {request(1)}, {request(2)}});
  std::sort(names_.begin(), names_.end());
  EXPECT_EQ(names_, (std::vector<std::string>{"p/0.png", "p/1.png", "p/2.png"}));
  EXPECT_EQ(outcome.restarts, 1);
  EXPECT_EQ(outcome.ranks.size(), 2u);
  for (const auto& name : names_)
    EXPECT_EQ(read_file(alone / name), read_file(job_.sink.folder / name)) << name;
}

}  // namespace
}  // namespace atelier::cluster
