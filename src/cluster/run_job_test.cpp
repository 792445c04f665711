// Whole runs with a small model: pictures on disk, their metadata, failures, and several processes.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

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
    job_.model.folder = kModel;
    job_.max_sequence_length = 16;
    job_.output = folder_ / "out";
  }
  ~RunJob() override {
    ::unsetenv("ATELIER_FAULT");
    fs::remove_all(folder_);
  }

  static request::Item item(int i) {
    request::Item item{.index = i, .prompt = str("a fox, number ", i), .name = str("p/", i, ".png")};
    item.height = 32, item.width = 48, item.steps = 2, item.guidance = 3.5, item.seed = 10 + i;
    return item;
  }

  RunResult run(const std::vector<std::vector<request::Item>>& batches, const std::stop_token& stop = {}) {
    jobs::Queue queue(batches, 1);
    const Events events{.on_step = [this](int, int step, int) { steps_.push_back(step); },
                        .on_picture = [this](const Finished& f) { names_.push_back(f.item.name); }};
    return run_job(job_, queue, events, stop);
  }

  fs::path folder_;
  Job job_;
  std::vector<int> steps_;
  std::vector<std::string> names_;
};

TEST_F(RunJob, WritesPicturesWithTheirSettingsInside) {
  const auto outcome = run({{item(0), item(1)}, {item(2)}});
  EXPECT_EQ(names_, (std::vector<std::string>{"p/0.png", "p/1.png", "p/2.png"}));
  EXPECT_EQ(steps_, (std::vector{1, 2, 1, 2}));
  ASSERT_EQ(outcome.ranks.size(), 1u);
  EXPECT_EQ(outcome.ranks[0].step_ms.size(), 2u);
  const std::string bytes = read_file(job_.output / "p/1.png");
  EXPECT_EQ(media::decode(bytes).width, 48);
  const auto metadata = media::read_metadata(bytes);
  ASSERT_TRUE(metadata);
  const auto has = [&](const char* key, const char* value) {
    return std::count(metadata->values.begin(), metadata->values.end(),
                      std::pair<std::string, std::string>(key, value));
  };
  EXPECT_EQ(has("prompt", "a fox, number 1"), 1);
  EXPECT_EQ(has("seed", "11"), 1);
  EXPECT_EQ(has("num_inference_steps", "2"), 1);
}

TEST_F(RunJob, AnItemThatCannotBeDrawnFailsAlone) {
  auto bad = item(1);
  bad.seed.reset();
  const auto outcome = run({{item(0)}, {bad}, {item(2)}});
  ASSERT_EQ(outcome.failures.size(), 1u);
  EXPECT_EQ(outcome.failures[0].item.name, "p/1.png");
  EXPECT_EQ(outcome.failures[0].attempts, 1);
  EXPECT_EQ(names_.size(), 2u);
}

TEST_F(RunJob, AFileInTheWayOfAFolderFailsItsItem) {
  fs::create_directories(job_.output);
  write_file_atomically(job_.output / "p", "no folder");
  auto other = item(1);
  other.name = "1.png";
  const auto outcome = run({{item(0)}, {other}});
  ASSERT_EQ(outcome.failures.size(), 1u);
  EXPECT_EQ(names_, std::vector<std::string>{"1.png"});
}

TEST_F(RunJob, AStopRequestInterruptsBetweenSteps) {
  std::stop_source stop;
  jobs::Queue queue({{item(0)}, {item(1)}}, 1);
  const Events events{.on_step = [&](int, int, int) { stop.request_stop(); }};
  try {
    run_job(job_, queue, events, stop.get_token());
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), Kind::kInterrupted);
  }
  EXPECT_FALSE(fs::exists(job_.output / "p/1.png"));
}

TEST_F(RunJob, ABrokenModelIsRefusedWithItsKind) {
  job_.model.folder = folder_;
  for (const int data : {1, 2}) {
    job_.degrees.data = data;
    try {
      run({{item(0)}, {item(1)}});
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), Kind::kUsage);
      EXPECT_NE(std::string(e.what()).find("model_index.json"), std::string::npos);
    }
  }
}

TEST_F(RunJob, TwoProcessesDrawTheSamePicturesThroughAKill) {
  run({{item(0)}, {item(1)}, {item(2)}});
  const fs::path alone = job_.output;
  names_.clear();
  job_.degrees.data = 2;
  job_.output = folder_ / "two";
  ::setenv("ATELIER_FAULT", "1:step:1:kill", 1);
  const auto outcome = run({{item(0)}, {item(1)}, {item(2)}});
  std::sort(names_.begin(), names_.end());
  EXPECT_EQ(names_, (std::vector<std::string>{"p/0.png", "p/1.png", "p/2.png"}));
  EXPECT_EQ(outcome.restarts, 1);
  EXPECT_EQ(outcome.ranks.size(), 2u);
  for (const auto& name : names_) EXPECT_EQ(read_file(alone / name), read_file(job_.output / name)) << name;
}

}  // namespace
}  // namespace atelier::cluster
