// What the tests of this room share: folders, variables, and pools of workers whose runner needs no model.
#pragma once
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "base/process_state.h"
#include "cluster/batch_run.h"
#include "media/image.h"

namespace atelier::cluster {

// The tests' program is its own worker. In it these variables say what kind of worker it is:
// FAKE: the real Worker around a runner without a model; HELD: around a real one that waits before steps;
// BABBLE, DEAF, MUTE: no worker at all, in its first start at the rank they name.
inline constexpr const char* kFakeVariable = "ATELIER_TEST_FAKE_RUNNER";
inline constexpr const char* kHeldVariable = "ATELIER_TEST_HELD_RUNNER";  // a folder, see HeldSteps
inline constexpr const char* kFolderVariable = "ATELIER_TEST_FOLDER";
inline constexpr const char* kOddVariable = "ATELIER_TEST_ODD_WORKER";  // "babble 1"

class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) { ::setenv(name, value.c_str(), 1); }
  ~Variable() { ::unsetenv(name_); }

 private:
  const char* name_;
};

class RunFolder {
 public:
  RunFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "atelier-pool-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~RunFolder() { std::filesystem::remove_all(path_); }
  const std::filesystem::path& path() const { return path_; }
  // Of all fake runners so far.
  std::vector<pid_t> processes() const {
    std::vector<pid_t> all;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      const std::string name = entry.path().filename();
      if (name.starts_with("process-")) all.push_back(std::stoi(name.substr(8)));
    }
    return all;
  }
  int unfinished() const {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      count += entry.path().filename().string().ends_with(".tmp");
    return count;
  }

 private:
  std::filesystem::path path_;
};

// A step of one request before which workers stand until they are let go, told by files of a folder. Of that
// request alone: ranks may still be on the last steps of the one before it.
class HeldSteps {
 public:
  explicit HeldSteps(std::filesystem::path folder) : folder_(std::move(folder)) {}
  // The test.
  void hold(const std::string& request, int step) const { std::ofstream(held(request, step)) << ' '; }
  bool is_standing(const std::string& request, int step, int rank) const {
    return std::filesystem::exists(standing(request, step, rank));
  }
  void let_go(const std::string& request, int step) const { std::filesystem::remove(held(request, step)); }
  // A worker.
  void stand_before(const std::string& request, int step, int rank) const {
    if (!std::filesystem::exists(held(request, step))) return;
    std::ofstream(standing(request, step, rank)) << ' ';
    while (std::filesystem::exists(held(request, step)))
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

 private:
  std::filesystem::path held(const std::string& request, int step) const {
    return folder_ / str("held-", step, "-", request);
  }
  std::filesystem::path standing(const std::string& request, int step, int rank) const {
    return folder_ / str("standing-", step, "-", rank, "-", request);
  }
  std::filesystem::path folder_;
};

inline bool is_running(pid_t id) {
  const char state = process_state(id);
  return state != '\0' && state != 'Z';
}

inline double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

inline std::string prompt_in(const std::string& bytes) {
  const auto metadata = media::read_metadata(bytes);
  if (!metadata) return "no metadata";
  for (const auto& [key, value] : metadata->values) {
    if (key == "prompt") return value;
  }
  return "no prompt";
}

// One run with workers around a runner that needs no model.
struct Trial {
  Job config;
  std::vector<std::string> prompts;
  int per_batch = 1;
  std::string fault, odd;
  std::stop_source stop;
  std::function<void(const ArtifactStored&)> on_stored;
  RunEvents events;  // the others

  RunFolder folder;
  std::map<std::string, int> pictures;  // how often each was reported
  std::vector<std::string> restarts;
  RunResult result;
  std::string reason;

  explicit Trial(int items, int data = 1, int ulysses = 1) {
    for (int i = 0; i < items; ++i) prompts.push_back(str("prompt ", i));
    config.engine.layout.data = data;
    config.engine.layout.ulysses = ulysses;
    config.pool = {.max_retries = 2, .batch_timeout_s = 60, .start_timeout_s = 60};
  }

  request::Request request(size_t i) const {
    request::Request r;
    r.index = static_cast<int64_t>(i);
    r.prompt = prompts[i];
    r.num_inference_steps = 3;
    r.name = str(i, ".png");
    return r;
  }
  std::vector<std::vector<request::Request>> batches() const {
    std::vector<std::vector<request::Request>> out;
    for (size_t i = 0; i < prompts.size(); ++i) {
      if (i % static_cast<size_t>(per_batch) == 0) out.emplace_back();
      out.back().push_back(request(i));
    }
    return out;
  }

  void go(Coordinator* coordinator = nullptr) {
    const Variable fake(kFakeVariable, "1"), where(kFolderVariable, folder.path()),
        broken("ATELIER_FAULT", fault);
    const Variable strange(kOddVariable, odd);
    config.sink.folder = folder.path();
    RunEvents heard = events;
    heard.on_stored = [&](const ArtifactStored& e) {
      ++pictures[e.request.name];
      if (on_stored) on_stored(e);
    };
    heard.on_restart = [&](const std::string& why) {
      restarts.push_back(why);
      if (events.on_restart) events.on_restart(why);
    };
    result = run_batches(config, batches(), heard, stop.get_token(), coordinator);
  }

  Kind fail() {
    try {
      go();
    } catch (const Error& e) {
      reason = e.what();
      return e.kind();
    }
    ADD_FAILURE() << "the run did not fail";
    return Kind::kUsage;
  }

  // All pictures once, whole; no process, no half file.
  void expect_all(size_t count) const {
    EXPECT_EQ(pictures.size(), count);
    for (const auto& [name, times] : pictures) {
      EXPECT_EQ(times, 1) << name;
      EXPECT_EQ(prompt_in(read_file(folder.path() / name)), prompts[std::stoul(name)]);
    }
    expect_nothing_left();
  }
  void expect_nothing_left() const {
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    for (const pid_t id : folder.processes()) EXPECT_FALSE(is_running(id)) << id;
    EXPECT_EQ(folder.unfinished(), 0);
  }
};

}  // namespace atelier::cluster
