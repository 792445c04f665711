#include "nn/product_tuner.h"

#include <utility>

#include "base/files.h"

namespace atelier::nn {
namespace {

ProductTable table_in(const std::filesystem::path& file) {
  std::error_code error;
  if (file.empty() || !std::filesystem::is_regular_file(file, error)) return {};
  try {
    return ProductTable::parse(read_file(file));
  } catch (const std::exception&) {  // it is measured again
    return {};
  }
}

}  // namespace

ProductTuner::ProductTuner(std::unique_ptr<ProductMeasurer> measurer, TunerOptions options)
    : measurer_(std::move(measurer)),
      options_(std::move(options)),
      table_(table_in(options_.file)),
      idle_since_(std::chrono::steady_clock::now()),
      thread_([this] { run(); }) {}

ProductTuner::~ProductTuner() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
    may_go_on_ = false;
  }
  changed_.notify_all();
  thread_.join();
  std::unique_lock lock(mutex_);
  if (is_changed_) save(lock);
}

ProductTuner::Busy::Busy(ProductTuner* tuner) : tuner_(tuner) {
  if (!tuner_) return;
  std::unique_lock lock(tuner_->mutex_);
  ++tuner_->works_;
  tuner_->may_go_on_ = false;
  tuner_->changed_.wait(lock, [this] { return !tuner_->is_measuring_; });
}

ProductTuner::Busy::~Busy() {
  if (!tuner_) return;
  {
    const std::lock_guard lock(tuner_->mutex_);
    --tuner_->works_;
    tuner_->idle_since_ = std::chrono::steady_clock::now();
  }
  tuner_->changed_.notify_all();
}

std::optional<ProductAlgorithm> ProductTuner::algorithm(const ProductShape& shape) {
  const std::lock_guard lock(mutex_);
  if (const auto* known = table_.find(shape)) {
    if (known->bytes.empty()) return std::nullopt;
    used_.insert(shape);
    return *known;
  }
  if (table_.want(shape)) is_changed_ = true;
  return std::nullopt;
}

void ProductTuner::leave_to_library(const ProductShape& shape) {
  const std::lock_guard lock(mutex_);
  const auto* known = table_.find(shape);
  if (known == nullptr) return;
  table_.set(shape, {{}, known->own_us, known->own_us});
  used_.erase(shape);
  is_changed_ = true;
}

int64_t ProductTuner::used() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(used_.size());
}

std::optional<ProductShape> ProductTuner::next() const {
  for (const auto& shape : table_.wanted()) {
    if (!failed_.contains(shape)) return shape;
  }
  return std::nullopt;
}

bool ProductTuner::wait_settled(std::chrono::milliseconds patience) const {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, patience, [this] { return !is_measuring_ && !is_saving_ && !next(); });
}

void ProductTuner::run() {
  std::unique_lock lock(mutex_);
  while (!is_stopping_) {
    const auto shape = works_ == 0 ? next() : std::nullopt;
    if (!shape) {
      changed_.wait(lock);
    } else if (const auto begin = idle_since_ + options_.idle; std::chrono::steady_clock::now() < begin) {
      changed_.wait_until(lock, begin);
    } else {
      measure(*shape, lock);
      if (is_changed_ && !next()) save(lock);
    }
  }
}

void ProductTuner::measure(const ProductShape& shape, std::unique_lock<std::mutex>& lock) {
  is_measuring_ = may_go_on_ = true;
  lock.unlock();
  std::optional<ProductAlgorithm> found;
  bool has_failed = false;
  try {
    found = measurer_->fastest(shape, [this] { return may_go_on_.load(); });
  } catch (const std::exception&) {
    has_failed = true;
  }
  lock.lock();
  is_measuring_ = false;
  if (found) {
    if (found->best_us > (1 - options_.least_gain) * found->own_us) found->bytes.clear();
    if (!found->bytes.empty()) ++generation_;
    table_.set(shape, std::move(*found));
    is_changed_ = true;
  } else if (has_failed || may_go_on_) {
    failed_.insert(shape);
  }
  changed_.notify_all();
}

// Other processes, as other ranks, write the same file: what they found is kept. Nobody waits for the disk.
void ProductTuner::save(std::unique_lock<std::mutex>& lock) {
  is_changed_ = false;
  if (options_.file.empty()) return;
  auto table = table_;
  is_saving_ = true;
  lock.unlock();
  try {
    table.merge(table_in(options_.file));
    write_file_atomically(options_.file, table.text());
  } catch (const std::exception&) {  // the next process measures again
  }
  lock.lock();
  is_saving_ = false;
  changed_.notify_all();
}

}  // namespace atelier::nn
