#include "cluster/supervisor.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cluster/channel.h"
#include "cluster/protocol.h"
#include "request/names.h"

namespace atelier::cluster {
namespace {

namespace fs = std::filesystem;
constexpr std::chrono::milliseconds kLook{100};     // between two looks at the clocks
constexpr std::chrono::milliseconds kHearsay{250};  // after one trouble, for others that explain it
constexpr int kHopeless = 3;                        // pictures in a row that fail with all their tries
constexpr std::chrono::seconds kAsleep{3};          // a longer pause of this loop: it was us who did not run

double seconds_between(std::chrono::steady_clock::time_point a, std::chrono::steady_clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

}  // namespace

Supervisor::Supervisor(const Job& job, jobs::Queue& queue, const Events& events, std::stop_token stop,
                       Rally* rally)
    : job_(job),
      queue_(queue),
      events_(events),
      stop_(std::move(stop)),
      rally_(rally),
      stop_fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      judge_(queue, plan::world_size(job.degrees) == job.degrees.data ? 1 : 2),
      groups_(static_cast<size_t>(job.degrees.data)) {}

Outcome Supervisor::run() {
  const std::stop_callback wake(stop_, [fd = stop_fd_.get()] {
    const uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(fd, &one, sizeof one);
  });
  for (;;) {
    if (events_.on_phase) events_.on_phase("load");
    started_ = looked_ = Clock::now();
    is_ready_ = false;
    troubles_.clear();
    team_.emplace(job_, rally_, restarts_);
    ranks_.assign(static_cast<size_t>(team_->size()), Rank{.heard = started_});
    const bool is_done = serve();
    if (is_done) {
      farewell();
    } else {
      settle();
    }
    if (is_settled()) break;
    ++restarts_;
    if (events_.on_restart) events_.on_restart(cause_);
  }
  Outcome outcome{.failures = queue_.failures(), .restarts = restarts_};
  for (auto& [rank, stats] : stats_) outcome.ranks.push_back(std::move(stats));
  return outcome;
}

bool Supervisor::serve() {
  for (;;) {
    if (stop_.stop_requested()) interrupt();
    for (const auto& news : team_->wait(kLook, stop_fd_.get())) hear(news);
    watch_clocks();
    if (!troubles_.empty()) {
      if (Clock::now() - troubled_ > kHearsay) return false;
      continue;
    }
    lend();
    if (is_settled()) return true;
  }
}

bool Supervisor::is_settled() const {
  const auto is_idle = [](const Group& g) { return g.loans.empty() && g.held.empty(); };
  return queue_.is_finished() && std::all_of(groups_.begin(), groups_.end(), is_idle);
}

void Supervisor::hear(const Team::News& news) {
  auto& rank = ranks_[static_cast<size_t>(news.rank)];
  if (!news.what.empty()) {
    add({news.rank, Weight::kGone, Kind::kPeer, news.what, 0, news.is_final, !rank.is_ready});
    return;
  }
  rank.heard = Clock::now();
  rank.has_spoken = true;
  const std::string kind = kind_of(news.message);
  const int group = group_of(news.rank);
  const bool leads = news.rank % ranks_per_group() == 0;
  if (kind == message::kAlive) {
    news.message.at("batch").get_to(rank.batch);
    news.message.at("phase").get_to(rank.phase);
    news.message.at("step").get_to(rank.step);
  } else if (kind == message::kReady || kind == message::kStats) {
    rank.is_ready = true;
    rank.phase = "idle";
    stats_[news.rank] = stats_from_json(news.message.at("stats"));
  } else if (kind == message::kStep && leads && events_.on_step) {
    events_.on_step(group, news.message.at("step").get<int>(), news.message.at("steps").get<int>());
  } else if (kind == message::kDrawn) {
    if (Loan* loan = find(group, news.message.at("batch").get<int64_t>()))
      loan->is_drawn = true, loan->since = rank.heard;
  } else if (kind == message::kPicture) {
    hear_picture(group, news.message);
  } else if (kind == message::kDone) {
    const auto batch = news.message.at("batch").get<int64_t>();
    queue_.done(batch);
    drop(group, batch);
    failed_starts_ = fruitless_ = 0;
  } else if (kind == message::kFailed) {
    hear_failure(news.rank, news.message);
  }
}

void Supervisor::hear_picture(int group, const Json& message) {
  Loan* loan = find(group, message.at("batch").get<int64_t>());
  if (!loan) return;
  const auto name = message.at("name").get<std::string>();
  auto& items = loan->batch.items;
  const auto item =
      std::find_if(items.begin(), items.end(), [&](const request::Item& i) { return i.name == name; });
  if (item == items.end()) return;
  const Finished finished{std::move(*item), message.at("bytes").get<int64_t>(),
                          message.at("seconds").get<double>()};
  items.erase(item);
  queue_.item_done(loan->batch.id, name);
  without_picture_ = 0;
  if (events_.on_picture) events_.on_picture(finished);
}

void Supervisor::hear_failure(int rank, const Json& message) {
  const auto kind = static_cast<Kind>(message.at("kind").get<int>());
  const auto reason = message.at("reason").get<std::string>(), phase = message.at("phase").get<std::string>();
  const auto batch = message.at("batch").get<int64_t>();
  const int group = group_of(rank);
  if (phase == "write" && Judge::ends_run(kind)) {
    team_->end(kGrace);
    remove_temporaries();
    throw Error(kind, reason);
  }
  if (message.at("is_over").get<bool>()) {
    auto& r = ranks_[static_cast<size_t>(rank)];
    add({rank, kind == Kind::kPeer ? Weight::kPeer : Weight::kFailed, kind, reason, batch, false,
         !r.is_ready});
    return;
  }
  // this worker goes on
  log::warning(str("rank ", rank, " failed: ", reason));
  if (const Loan* loan = find(group, batch)) judge_.settle(loan->batch, kind, reason);
  drop(group, batch);
}

void Supervisor::add(Trouble trouble) {
  if (troubles_.empty()) troubled_ = Clock::now();
  const auto known = std::find_if(troubles_.begin(), troubles_.end(),
                                  [&](const Trouble& t) { return t.rank == trouble.rank; });
  if (known == troubles_.end()) {
    troubles_.push_back(std::move(trouble));
    return;
  }
  known->is_final |= trouble.is_final;
  // The closed connection was heard of first, now how the process ended; of others we know why they end.
  if (known->weight == Weight::kGone) known->reason = trouble.reason;
}

void Supervisor::watch_clocks() {
  const auto now = Clock::now();
  if (const auto pause = now - looked_; pause > kAsleep) {
    // This process was stopped, and its workers perhaps with it: their time did not run either.
    for (auto& r : ranks_) r.heard += pause;
    for (auto& g : groups_) {
      for (auto& loan : g.loans) loan.since += pause;
    }
    started_ += pause;
  }
  looked_ = now;
  for (int rank = 0; rank < team_->size(); ++rank) {
    const auto& r = ranks_[static_cast<size_t>(rank)];
    // linking and loading a large program may take long before its first word
    const bool must_speak = r.has_spoken || (now - r.heard > kSilence && team_->is_stopped(rank));
    if (must_speak && now - r.heard > kSilence) {
      add({rank, Weight::kSilent, Kind::kPeer,
           str("gave no sign of life for ", kSilence.count(), " s (in phase ", r.phase, ")"), 0, false,
           !r.is_ready});
    } else if (!r.is_ready && seconds_between(started_, now) > job_.start_timeout_s) {
      const char* what = team_->has_come(rank) ? "has not loaded" : "has not come";
      add({rank, Weight::kLate, Kind::kPeer,
           str(what, " within ", job_.start_timeout_s, " s (in phase ", r.phase, ")"), 0, false, true});
    }
  }
  watch_loans(now);
}

void Supervisor::watch_loans(Clock::time_point now) {
  for (int group = 0; group < job_.degrees.data; ++group) {
    for (const auto& loan : groups_[static_cast<size_t>(group)].loans) {
      if (seconds_between(loan.since, now) <= job_.item_timeout_s) continue;
      const int rank = loan.is_drawn ? group * ranks_per_group() : latest_rank(group);
      const auto& r = ranks_[static_cast<size_t>(rank)];
      const std::string where =
          loan.is_drawn ? "while writing" : str("in phase ", r.phase, ", step ", r.step);
      add({rank, Weight::kLate, Kind::kPeer,
           str("is late: a batch took longer than ", job_.item_timeout_s, " s; it is ", where), loan.batch.id,
           false, false});
    }
  }
}

int Supervisor::latest_rank(int group) const {
  const int first = group * ranks_per_group();
  const auto progress = [&](int rank) {
    const auto& r = ranks_[static_cast<size_t>(rank)];
    return std::tuple(r.batch,
                      r.phase == "idle"     ? 3
                      : r.phase == "decode" ? 2
                      : r.phase == "step"   ? 1
                                            : 0,
                      r.step);
  };
  int latest = first;
  for (int rank = first + 1; rank < first + ranks_per_group(); ++rank) {
    if (progress(rank) < progress(latest)) latest = rank;
  }
  return latest;
}

bool Supervisor::is_group_ready(int group) const {
  const auto first = ranks_.begin() + group * ranks_per_group();
  return std::all_of(first, first + ranks_per_group(), [](const Rank& r) { return r.is_ready; });
}

void Supervisor::lend() {
  bool are_ready = true;
  for (int group = 0; group < job_.degrees.data; ++group) {
    if (!is_group_ready(group)) {
      are_ready = false;
    } else {
      while (lend_to(group)) continue;
    }
  }
  if (are_ready && !is_ready_ && events_.on_phase) events_.on_phase("ready");
  is_ready_ = is_ready_ || are_ready;
}

// One batch is drawn while another one is written.
bool Supervisor::lend_to(int number) {
  auto& group = groups_[static_cast<size_t>(number)];
  const bool is_drawing =
      std::any_of(group.loans.begin(), group.loans.end(), [](const Loan& l) { return !l.is_drawn; });
  if (is_drawing || group.loans.size() >= 2) return false;
  std::optional<jobs::Batch> batch;
  if (!group.held.empty()) {
    batch = std::move(group.held.front());
    group.held.pop_front();
  } else {
    batch = queue_.take(number);
  }
  if (!batch) return false;
  Json message = message_of(message::kBatch);
  message["id"] = batch->id;
  message["attempt"] = batch->attempt;
  message["items"] = Json::array();
  for (const auto& item : batch->items) message["items"].push_back(to_json(item));
  log::debug(str("group ", number, " draws ", batch->items.size(), " pictures: batch ", batch->id,
                 ", attempt ", batch->attempt));
  for (int i = 0; i < ranks_per_group(); ++i) team_->send(number * ranks_per_group() + i, message);
  group.loans.push_back({std::move(*batch), Clock::now(), false});
  return true;
}

Supervisor::Loan* Supervisor::find(int group, int64_t batch) {
  for (auto& loan : groups_[static_cast<size_t>(group)].loans) {
    if (loan.batch.id == batch) return &loan;
  }
  return nullptr;
}

void Supervisor::drop(int group, int64_t batch) {
  std::erase_if(groups_[static_cast<size_t>(group)].loans,
                [&](const Loan& l) { return l.batch.id == batch; });
}

void Supervisor::settle() {
  const auto worst =
      std::max_element(troubles_.begin(), troubles_.end(), [](const Trouble& a, const Trouble& b) {
        return std::pair(a.is_final, a.weight) < std::pair(b.is_final, b.weight);
      });
  const Trouble cause = *worst;
  for (const auto& t : troubles_) {
    // The cause is told to the caller; others may say the same, and peers only met the others' end.
    if (t.reason == cause.reason || t.weight == Weight::kPeer) continue;
    log::error(str(team_->name(t.rank), " ", t.reason));
  }
  const std::string who = team_->name(cause.rank);
  team_->end(kGrace);
  remove_temporaries();
  if (cause.is_final)
    throw Error(Kind::kPeer,
                str(who, ": ", cause.reason, "; start the run again, finished pictures are kept"));
  if (cause.is_loading) {
    check_start(cause);
  } else {
    charge(cause);
  }
  // whoever else held a batch draws it again, and nobody counts that against it
  for (auto& group : groups_) {
    for (auto loan = group.loans.rbegin(); loan != group.loans.rend(); ++loan) {
      if (loan->batch.items.empty()) {
        queue_.done(loan->batch.id);
      } else {
        group.held.push_front(std::move(loan->batch));
      }
    }
    group.loans.clear();
  }
  cause_ = str(who, " ", cause.reason);
  if (++without_picture_ > kHopeless * (job_.max_retries + 1)) {
    throw Error(Kind::kPeer, str("the workers were started ", without_picture_,
                                 " times without a picture, last because ", cause_));
  }
}

void Supervisor::check_start(const Trouble& cause) {
  const bool is_refusal =
      cause.kind == Kind::kCheckpoint || cause.kind == Kind::kUsage || cause.kind == Kind::kCapacity;
  if (is_refusal) throw Error(cause.kind, str("rank ", cause.rank, " ", cause.reason));
  const bool is_accident = cause.weight == Weight::kGone || cause.weight == Weight::kSilent;
  const int limit = is_accident ? job_.max_retries : 1;
  if (++failed_starts_ <= limit) return;
  throw Error(Kind::kPeer,
              str("rank ", cause.rank, " did not load, ", failed_starts_, " times in a row: ", cause.reason,
                  job_.device == "cpu" ? ""
                                       : "; NCCL_DEBUG=INFO shows what its connections do, "
                                         "NCCL_IB_DISABLE=1 leaves InfiniBand out"));
}

void Supervisor::charge(const Trouble& cause) {
  auto& loans = groups_[static_cast<size_t>(group_of(cause.rank))].loans;
  auto charged =
      std::find_if(loans.begin(), loans.end(), [&](const Loan& l) { return l.batch.id == cause.batch; });
  if (charged == loans.end()) {
    charged = std::find_if(loans.begin(), loans.end(), [](const Loan& l) { return !l.is_drawn; });
  }
  if (charged == loans.end()) charged = loans.begin();
  if (charged == loans.end()) {
    if (++fruitless_ <= job_.max_retries) return;
    throw Error(Kind::kPeer,
                str("rank ", cause.rank, " ended ", fruitless_, " times without work: ", cause.reason));
  }
  judge_.settle(charged->batch, cause.kind, str("rank ", cause.rank, " ", cause.reason));
  loans.erase(charged);
}

void Supervisor::interrupt() {
  team_->end(kGrace);
  remove_temporaries();
  throw Error(Kind::kInterrupted, "interrupted; pictures that are finished stay, run again for the rest");
}

void Supervisor::farewell() {
  for (int rank = 0; rank < team_->size(); ++rank) team_->send(rank, message_of(message::kStop));
  const auto end = Clock::now() + kFarewell;
  for (int left = team_->size(); left > 0 && Clock::now() < end && !stop_.stop_requested();) {
    for (const auto& news : team_->wait(kLook, stop_fd_.get())) {
      if (!news.what.empty()) {
        --left;
      } else if (kind_of(news.message) == message::kStats) {
        stats_[news.rank] = stats_from_json(news.message.at("stats"));
      }
    }
  }
  team_->end(kGrace);
}

// What workers of this host had begun to write when they were ended. Their own cleaning comes with their next
// picture, which there may not be.
void Supervisor::remove_temporaries() const {
  std::set<fs::path> folders{job_.output};
  for (const auto& group : groups_) {
    for (const auto& loan : group.loans) {
      for (const auto& item : loan.batch.items)
        folders.insert(job_.output / fs::path(item.name).parent_path());
    }
  }
  std::error_code ignored;
  for (const auto& folder : folders) {
    for (const auto& entry : fs::directory_iterator(folder, ignored)) {
      const std::string name = entry.path().filename().string();
      if (!name.starts_with(request::kTemporaryPrefix)) continue;
      for (const pid_t id : team_->processes()) {
        if (name.find(str("-", id, "-")) != std::string::npos) fs::remove(entry.path(), ignored);
      }
    }
  }
}

}  // namespace atelier::cluster
