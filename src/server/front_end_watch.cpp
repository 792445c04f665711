#include "server/front_end_watch.h"

#include <utility>

#include "base/error.h"
#include "base/log.h"

namespace atelier::server {

FrontEndWatch::FrontEndWatch(JobStore& store, Calls calls, std::chrono::milliseconds every)
    : store_(store), calls_(std::move(calls)), every_(every) {
  thread_ = std::thread([this] { work(); });
}

FrontEndWatch::~FrontEndWatch() {
  {
    const std::scoped_lock lock(mutex_);
    is_over_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void FrontEndWatch::follow(const std::string& id) {
  const std::scoped_lock lock(mutex_);
  followed_.insert(id);
}

void FrontEndWatch::ask_cancel(const std::string& id) {
  add([this, id] { store_.ask_cancel(id); });
}

void FrontEndWatch::remove(const std::string& id) {
  add([this, id] { store_.remove(id); });
}

void FrontEndWatch::add(Errand errand) {
  {
    const std::scoped_lock lock(mutex_);
    errands_.push_back(std::move(errand));
  }
  changed_.notify_one();
}

void FrontEndWatch::work() {
  auto next = std::chrono::steady_clock::now() + every_;
  for (;;) {
    std::vector<Errand> errands;
    bool is_over = false;
    {
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, next, [this] { return is_over_ || !errands_.empty(); });
      errands = std::exchange(errands_, {});
      is_over = is_over_;
    }
    run(std::move(errands));
    if (is_over) return;
    if (std::chrono::steady_clock::now() < next) continue;
    run(std::exchange(again_, {}));
    attempt([this] { look(); });
    next = std::chrono::steady_clock::now() + every_;
  }
}

void FrontEndWatch::run(std::vector<Errand> errands) {
  for (auto& errand : errands) {
    if (!attempt(errand)) again_.push_back(std::move(errand));
  }
}

// A store that fails is complained of once.
bool FrontEndWatch::attempt(const Errand& errand) {
  try {
    errand();
    complaint_.clear();
    return true;
  } catch (const std::exception& e) {
    if (complaint_ != e.what()) log::warning(e.what());
    complaint_ = e.what();
    return false;
  }
}

void FrontEndWatch::look() {
  std::set<std::string> followed;
  {
    const std::scoped_lock lock(mutex_);
    followed = followed_;
  }
  for (const auto& id : followed) {
    EndedJob ended{.id = id, .record = store_.find(id)};
    if (ended.record && !is_final(ended.record->state)) continue;
    if (ended.record) {
      for (const auto& picture : ended.record->pictures)
        ended.pictures.push_back(store_.picture(id, picture.name));
    }
    {
      const std::scoped_lock lock(mutex_);
      followed_.erase(id);
    }
    calls_.ended(std::move(ended));
  }
  if (calls_.may_adopt()) {
    for (auto& record : store_.adopt()) calls_.adopted(std::move(record));
  }
  for (const auto& id : store_.cancels_asked()) calls_.cancel_asked(id);
}

}  // namespace atelier::server
