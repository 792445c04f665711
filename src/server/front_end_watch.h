// The other front ends of a store that several share: what became of their jobs, who of them is gone, what
// they ask. From a thread of its own, so that nobody waits for a database.
#pragma once
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "server/job_store.h"

namespace atelier::server {

// A job of another front end that has ended.
struct EndedJob {
  std::string id;
  std::optional<JobRecord> record = {};                   // none: it is not there any more
  std::vector<std::optional<std::string>> pictures = {};  // of the record; none: not there
};

class FrontEndWatch {
 public:
  // All on the watch's thread.
  struct Calls {
    std::function<bool()> may_adopt;
    std::function<void(JobRecord)> adopted;
    std::function<void(const std::string& id)>
        cancel_asked;  // of an own job, again and again until it has ended
    std::function<void(EndedJob)> ended;
  };
  // every: between two looks.
  FrontEndWatch(JobStore& store, Calls calls, std::chrono::milliseconds every = std::chrono::seconds(1));
  ~FrontEndWatch();

  // Any thread; these never wait. ended() is called once for each job that is followed.
  void follow(const std::string& id);
  void ask_cancel(const std::string& id);
  void remove(const std::string& id);

 private:
  using Errand = std::function<void()>;
  void add(Errand errand);
  void work();
  void run(std::vector<Errand> errands);
  void look();
  bool attempt(const Errand& errand);

  JobStore& store_;
  const Calls calls_;
  const std::chrono::milliseconds every_;
  std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::set<std::string> followed_;
  std::vector<Errand> errands_;
  bool is_over_ = false;
  std::vector<Errand> again_;  // of the thread alone: errands that failed
  std::string complaint_;      // that was logged last
  std::thread thread_;
};

}  // namespace atelier::server
