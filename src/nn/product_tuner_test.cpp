// The table of measured products, and who is measured when.
#include "nn/product_tuner.h"

#include <gtest/gtest.h>

#include <future>
#include <stdexcept>
#include <utility>

#include "base/files.h"
#include "base/scratch.h"

namespace atelier::nn {
namespace {

using namespace std::chrono_literals;

ProductShape shape_of(int64_t rows, Epilogue epilogue = Epilogue::kBias) {
  return {at::kBFloat16, epilogue, rows, 3072, 9216, 3072};
}

TEST(ProductTable, ComesBackFromItsText) {
  ProductTable table;
  table.set(shape_of(2304), {std::string("\0\x7f\xff", 3), 170.4, 163.25});
  table.set({at::kHalf, Epilogue::kBiasGelu, 512, 64, 128, 96}, {"", 12.5, 12.5});
  EXPECT_TRUE(table.want(shape_of(1152, Epilogue::kAdd)));
  EXPECT_FALSE(table.want(shape_of(1152, Epilogue::kAdd)));
  const auto back = ProductTable::parse(table.text());
  EXPECT_EQ(back.text(), table.text());
  ASSERT_NE(back.find(shape_of(2304)), nullptr);
  EXPECT_EQ(back.find(shape_of(2304))->bytes, std::string("\0\x7f\xff", 3));
  EXPECT_EQ(back.find(shape_of(2304))->best_us, 163.25);
  EXPECT_EQ(back.find(shape_of(1152, Epilogue::kAdd)), nullptr);
  EXPECT_EQ(back.wanted(), std::vector{shape_of(1152, Epilogue::kAdd)});
}

TEST(ProductTable, LeavesOutWhatItCannotRead) {
  ProductTable table;
  table.set(shape_of(2304), {"abc", 2, 1});
  const std::string good = table.text(), line = good.substr(good.find('\n') + 1);
  EXPECT_EQ(ProductTable::parse(good + line).size(), 1U);
  for (const char* bad :
       {"bfloat16", "bfloat16 bias 1 2 3", "bfloat16 bias 1 2 3 2 zz 1 1", "bfloat16 bias 1 2 3 2 abc 1 1",
        "bfloat16 bias 1 2 3 1 ab 1 1", "bfloat16 bias -1 2 3 2 ab 1 1", "float32 bias 1 2 3 2 ab 1 1",
        "bfloat16 relu 1 2 3 2 ab 1 1", "bfloat16 bias 1 2 3 2 ab 1", "bfloat16 bias 1 2 3 2 ab 0 1",
        "bfloat16 bias 1 2 3 2 ab nan 1", "bfloat16 bias 1 2 3 2 wanted more",
        "bfloat16 bias 99999999999999999999 2 3 2 ab 1 1"}) {
    EXPECT_EQ(ProductTable::parse(good + bad + "\n").text(), good) << bad;
  }
  EXPECT_EQ(ProductTable::parse("atelier products 2\n" + line).size(), 0U);
  EXPECT_EQ(ProductTable::parse(std::string("\0\xff", 2)).size(), 0U);
  EXPECT_EQ(ProductTable::parse("").size(), 0U);
}

TEST(ProductTable, TakesWhatAnotherKnows) {
  ProductTable mine, other;
  mine.want(shape_of(1));
  mine.set(shape_of(2), {"mine", 2, 1});
  other.set(shape_of(1), {"other", 2, 1});
  other.set(shape_of(2), {"other", 2, 1});
  other.want(shape_of(3));
  mine.merge(other);
  EXPECT_EQ(mine.find(shape_of(1))->bytes, "other");
  EXPECT_EQ(mine.find(shape_of(2))->bytes, "mine");
  EXPECT_EQ(mine.wanted(), std::vector{shape_of(3)});
}

// Says for each shape's rows what was asked for; waits at a gate where there is one.
class FakeMeasurer : public ProductMeasurer {
 public:
  struct Log {
    std::mutex mutex;
    std::vector<int64_t> begun, ended;
    std::atomic<bool> is_slow = false;
  };
  explicit FakeMeasurer(std::shared_ptr<Log> log) : log_(std::move(log)) {}

  std::optional<ProductAlgorithm> fastest(const ProductShape& shape,
                                          const std::function<bool()>& may_go_on) override {
    note(log_->begun, shape.rows);
    while (log_->is_slow && may_go_on()) std::this_thread::sleep_for(1ms);
    if (!may_go_on()) return std::nullopt;
    note(log_->ended, shape.rows);
    if (shape.rows == kThrows) throw std::runtime_error("no such product");
    if (shape.rows == kHasNone) return std::nullopt;
    return ProductAlgorithm{"fast", 100, shape.rows == kGainsLittle ? 99.5 : 90};
  }
  static constexpr int64_t kThrows = 13, kHasNone = 14, kGainsLittle = 15;

 private:
  void note(std::vector<int64_t>& list, int64_t rows) {
    const std::lock_guard lock(log_->mutex);
    list.push_back(rows);
  }
  std::shared_ptr<Log> log_;
};

struct Tuned {
  std::shared_ptr<FakeMeasurer::Log> log = std::make_shared<FakeMeasurer::Log>();
  ProductTuner tuner;
  explicit Tuned(std::filesystem::path file = {})
      : tuner(std::make_unique<FakeMeasurer>(log), {std::move(file), 0ms}) {}

  // As a picture's products ask for them.
  void draw(std::initializer_list<int64_t> rows) {
    const ProductTuner::Busy work(&tuner);
    for (const int64_t n : rows) tuner.algorithm(shape_of(n));
  }
  bool is_tuned(int64_t rows) { return tuner.algorithm(shape_of(rows)).has_value(); }
  std::vector<int64_t> ended() {
    const std::lock_guard lock(log->mutex);
    return log->ended;
  }
};

TEST(ProductTuner, MeasuresWhatItMetOnce) {
  Tuned t;
  t.draw({1, 2, 1});
  ASSERT_TRUE(t.tuner.wait_settled(5s));
  EXPECT_TRUE(t.is_tuned(1) && t.is_tuned(2));
  EXPECT_EQ(t.tuner.generation(), 2);
  EXPECT_EQ(t.tuner.used(), 2);
  t.draw({1, 2});
  ASSERT_TRUE(t.tuner.wait_settled(5s));
  EXPECT_EQ(t.ended(), (std::vector<int64_t>{1, 2}));
}

TEST(ProductTuner, LeavesToTheLibraryWhatGainsLittleOrFails) {
  Tuned t;
  t.draw({FakeMeasurer::kThrows, FakeMeasurer::kHasNone, FakeMeasurer::kGainsLittle, 1});
  ASSERT_TRUE(t.tuner.wait_settled(5s));
  t.draw({FakeMeasurer::kThrows, FakeMeasurer::kHasNone, FakeMeasurer::kGainsLittle});
  ASSERT_TRUE(t.tuner.wait_settled(5s));
  EXPECT_EQ(t.ended().size(), 4U);
  EXPECT_EQ(t.tuner.generation(), 1);
  for (const int64_t rows : {FakeMeasurer::kThrows, FakeMeasurer::kHasNone, FakeMeasurer::kGainsLittle})
    EXPECT_FALSE(t.is_tuned(rows)) << rows;
}

TEST(ProductTuner, LeavesToTheLibraryWhatItRefuses) {
  Tuned t;
  t.draw({1});
  ASSERT_TRUE(t.tuner.wait_settled(5s));
  ASSERT_TRUE(t.is_tuned(1));
  t.tuner.leave_to_library(shape_of(1));
  EXPECT_FALSE(t.is_tuned(1));
  EXPECT_EQ(t.tuner.used(), 0);
  EXPECT_TRUE(t.tuner.wait_settled(5s));
  EXPECT_EQ(t.ended().size(), 1U);
}

TEST(ProductTuner, MeasuresNothingWhileWorkIsUnderWay) {
  Tuned t;
  {
    const ProductTuner::Busy outer(&t.tuner);
    t.draw({1});
    EXPECT_FALSE(t.tuner.wait_settled(50ms));
    EXPECT_TRUE(t.ended().empty());
    EXPECT_EQ(t.tuner.generation(), 0);
  }
  EXPECT_TRUE(t.tuner.wait_settled(5s));
  EXPECT_TRUE(t.is_tuned(1));
}

TEST(ProductTuner, WorkEndsAMeasurementThatIsMadeAgainLater) {
  Tuned t;
  t.log->is_slow = true;
  t.draw({1});
  while (!t.tuner.wait_settled(1ms)) {
    const std::lock_guard lock(t.log->mutex);
    if (!t.log->begun.empty()) break;
  }
  const auto begin = std::chrono::steady_clock::now();
  {
    const ProductTuner::Busy work(&t.tuner);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
    EXPECT_TRUE(t.ended().empty());
    t.log->is_slow = false;
  }
  EXPECT_TRUE(t.tuner.wait_settled(5s));
  EXPECT_EQ(t.ended(), std::vector<int64_t>{1});
}

TEST(ProductTuner, StopsInTheMiddleOfAMeasurement) {
  const auto begin = std::chrono::steady_clock::now();
  {
    Tuned t;
    t.log->is_slow = true;
    t.draw({1, 2, 3});
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
}

TEST(ProductTuner, KeepsWhatItFoundAndWhatItMetForLaterProcesses) {
  const Scratch folder;
  const auto file = folder / "cache" / "products.txt";
  {
    Tuned t(file);
    t.draw({1});
    ASSERT_TRUE(t.tuner.wait_settled(5s));
    t.log->is_slow = true;
    t.draw({2});
  }
  Tuned later(file);  // measures before anybody asks
  EXPECT_TRUE(later.is_tuned(1));
  ASSERT_TRUE(later.tuner.wait_settled(5s));
  EXPECT_EQ(later.ended(), std::vector<int64_t>{2});
  EXPECT_TRUE(later.is_tuned(2));
}

TEST(ProductTuner, KeepsWhatOthersWroteMeanwhile) {
  const Scratch folder;
  const auto file = folder / "products.txt";
  {
    Tuned one(file), other(file);
    one.draw({1});
    ASSERT_TRUE(one.tuner.wait_settled(5s));
    other.draw({2});
    ASSERT_TRUE(other.tuner.wait_settled(5s));
  }
  const auto table = ProductTable::parse(read_file(file));
  EXPECT_NE(table.find(shape_of(1)), nullptr);
  EXPECT_NE(table.find(shape_of(2)), nullptr);
}

TEST(ProductTuner, AFileThatCannotBeReadOrWrittenCostsNothingElse) {
  const Scratch folder;
  const auto damaged = folder.write("products.txt", "neither table nor text \xff");
  for (const auto& file : {damaged, folder.path(), damaged / "below a file"}) {
    Tuned t(file);
    t.draw({1});
    EXPECT_TRUE(t.tuner.wait_settled(5s));
    EXPECT_TRUE(t.is_tuned(1));
  }
}

}  // namespace
}  // namespace atelier::nn
