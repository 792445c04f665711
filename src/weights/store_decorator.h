// A WeightStore in front of another one, which it asks for everything. Chains are made of these.
#pragma once
#include <memory>
#include <utility>

#include "weights/store.h"

namespace atelier::weights {

class StoreDecorator : public WeightStore {
 public:
  explicit StoreDecorator(std::unique_ptr<WeightStore> base) : base_(std::move(base)) {}

  void adopt(std::span<const NameRule> rules) override { base_->adopt(rules); }
  bool has(std::string_view name) const override { return base_->has(name); }
  std::vector<int64_t> shape(std::string_view name) const override { return base_->shape(name); }
  void read_into(at::Tensor& out, std::string_view name, at::IntArrayRef full, std::span<const Range> rows,
                 std::span<const Range> cols) const override {
    base_->read_into(out, name, full, rows, cols);
  }
  std::vector<std::string> names() const override { return base_->names(); }
  std::vector<std::string> unread() const override { return base_->unread(); }
  void check() const override { base_->check(); }
  void check(std::span<const std::string_view> ignorable) const override { base_->check(ignorable); }
  std::vector<ManifestEntry> manifest() const override { return base_->manifest(); }
  std::string title() const override { return base_->title(); }

 protected:
  const WeightStore& base() const { return *base_; }

 private:
  std::unique_ptr<WeightStore> base_;
};

}  // namespace atelier::weights
