// Finds the fastest algorithm of each product while nothing else is to do.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "nn/product_table.h"

namespace atelier::nn {

// What measures. It runs on the tuner's thread.
class ProductMeasurer {
 public:
  virtual ~ProductMeasurer() = default;
  // Of the algorithms that give the same bits as the library's own choice, the one that takes the least time.
  // Asks may_go_on every few milliseconds, and ends with none where it says no. What it throws leaves the
  // shape to the library.
  virtual std::optional<ProductAlgorithm> fastest(const ProductShape& shape,
                                                  const std::function<bool()>& may_go_on) = 0;
};

// One per device and process. A product asks for its shape's algorithm; a shape that is not known is noted
// and measured later, on a thread of the tuner's own, while no work is under way: what draws a picture waits
// for one measurement's few milliseconds at most. What was found is used from the next work on, and by later
// processes, if there is a file.
class ProductTuner {
 public:
  struct TunerOptions {
    std::filesystem::path file;          // empty: nothing is kept
    std::chrono::milliseconds idle{50};  // after the last work
    double least_gain = 0.03;            // of the time of the library's own choice
  };
  ProductTuner(std::unique_ptr<ProductMeasurer> measurer, TunerOptions options);
  ~ProductTuner();  // stops, within one measurement's few milliseconds
  ProductTuner(const ProductTuner&) = delete;
  ProductTuner& operator=(const ProductTuner&) = delete;

  // While one lives nothing is measured.
  class Busy {
   public:
    explicit Busy(ProductTuner* tuner);  // may be null
    ~Busy();
    Busy(const Busy&) = delete;
    Busy& operator=(const Busy&) = delete;

   private:
    ProductTuner* tuner_;
  };

  // None: the library's own choice.
  std::optional<ProductAlgorithm> algorithm(const ProductShape& shape);
  // What was found for it does not work.
  void leave_to_library(const ProductShape& shape);
  // Grows when an algorithm has been found that differs from what was used before.
  int64_t generation() const { return generation_; }
  // Shapes that were computed otherwise than the library would of itself.
  int64_t used() const;
  // Waits until all that was met has been measured and kept, so long at most. Whether it has.
  bool wait_settled(std::chrono::milliseconds patience) const;

 private:
  void run();
  std::optional<ProductShape> next() const;  // to be measured
  void measure(const ProductShape& shape, std::unique_lock<std::mutex>& lock);
  void save(std::unique_lock<std::mutex>& lock);

  const std::unique_ptr<ProductMeasurer> measurer_;
  const TunerOptions options_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  ProductTable table_;
  std::set<ProductShape> failed_, used_;
  int works_ = 0;
  bool is_measuring_ = false, is_saving_ = false, is_stopping_ = false, is_changed_ = false;
  std::chrono::steady_clock::time_point idle_since_;
  std::atomic<bool> may_go_on_ = false;
  std::atomic<int64_t> generation_ = 0;
  std::thread thread_;
};

}  // namespace atelier::nn
