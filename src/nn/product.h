// What a matrix product takes: activations and weights, dense or in eight bits with a scale per row.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <utility>

namespace atelier::nn {

// x [..., C] in the model's type, or 8-bit rows with one scale each (x = rows * scale), or numbers that are
// not written yet: whoever takes them first says in which form, so that one kernel makes and rounds them.
// What they are made of must not change before that.
class Activation {
 public:
  // How to make numbers that are not written yet.
  class Producer {
   public:
    virtual ~Producer() = default;
    virtual const at::Tensor& like() const = 0;  // a tensor of the numbers' sizes, type and device
    virtual at::Tensor dense() const = 0;
    virtual Activation e4m3() const = 0;
    // Tokens that may be written at a time, the first axis; 0: all.
    virtual int64_t tokens_at_once() const { return 0; }
    virtual Activation tokens(int64_t begin, int64_t count) const;
    virtual bool is_gelu() const { return false; }  // gelu_tanh of like(), which other kernels can apply too
  };

  // Dense. Implicit, so that layers take tensors.
  Activation(at::Tensor dense) : type_(dense.scalar_type()), rows_(std::move(dense)) {}  // NOLINT
  // rows [..., C]: float8 or int8; scale [..., 1], float; type: the model's.
  Activation(at::Tensor rows, at::Tensor scale, at::ScalarType type)
      : type_(type), rows_(std::move(rows)), scale_(std::move(scale)) {}
  explicit Activation(std::unique_ptr<const Producer> source);

  bool is_dense() const { return !scale_.defined(); }
  at::ScalarType type() const { return type_; }
  at::IntArrayRef sizes() const { return unwritten_ ? unwritten_->from->like().sizes() : rows_.sizes(); }
  bool is_cuda() const { return unwritten_ ? unwritten_->from->like().is_cuda() : rows_.is_cuda(); }
  // Written, if they were not.
  const at::Tensor& rows() const;
  const at::Tensor& scale() const { return scale_; }
  // Of numbers that are to be written some tokens at a time: how many; 0: no need.
  int64_t tokens_at_once() const { return unwritten_ ? unwritten_->from->tokens_at_once() : 0; }
  // A range of the first axis.
  Activation tokens(int64_t begin, int64_t count) const;
  // In the model's type.
  operator at::Tensor() const;  // NOLINT: for whoever listens or adds

 private:
  friend Activation e4m3_of(std::span<const Activation> segments);
  struct Unwritten {  // shared by copies, as what was made of it
    std::unique_ptr<const Producer> from;
    at::Tensor dense;
    std::unique_ptr<const Activation> e4m3;
  };

  at::ScalarType type_;
  at::Tensor rows_, scale_;
  std::shared_ptr<Unwritten> unwritten_;
};

// W [out, in]: dense, or 8-bit rows with one scale each. Columns may be cut: the scales belong to whole rows.
class Weight {
 public:
  Weight() = default;
  Weight(at::Tensor dense) : rows_(std::move(dense)) {}  // NOLINT: what the builder reads
  // rows [out, in]: float8 or int8; scale [out, 1], float.
  Weight(at::Tensor rows, at::Tensor scale) : rows_(std::move(rows)), scale_(std::move(scale)) {}

  explicit operator bool() const { return rows_.defined(); }
  bool is_dense() const { return !scale_.defined(); }
  // Layers multiply e4m3 with e4m3; other 8-bit numbers are storage alone.
  bool is_e4m3() const { return !is_dense() && rows_.scalar_type() == at::kFloat8_e4m3fn; }
  int64_t out() const { return rows_.size(0); }
  int64_t in() const { return rows_.size(1); }
  const at::Tensor& rows() const { return rows_; }
  const at::Tensor& scale() const { return scale_; }
  Weight columns(int64_t begin, int64_t count) const { return {rows_.narrow(1, begin, count), scale_}; }
  Weight outputs(int64_t begin, int64_t count) const {
    return {rows_.narrow(0, begin, count), is_dense() ? scale_ : scale_.narrow(0, begin, count)};
  }

 private:
  at::Tensor rows_, scale_;
};

// The nearest 8-bit numbers (kFloat8_e4m3fn, kFloat8_e5m2 or kChar). Scales of e4m3 are powers of two
// (kernels/quantise.h); other types scale each row's largest magnitude to the largest number of the type.
// Rows of zeros get scale 1.
Activation quantised(const at::Tensor& x, at::ScalarType type);
Weight quantised_weight(const at::Tensor& w, at::ScalarType type);
// The same, into memory that is there.
void quantise_e4m3_into(const at::Tensor& x, at::Tensor rows, at::Tensor scale);
// One operand in e4m3, [..., C of all segments]: itself where it is one already, else one pass over
// what there is.
Activation e4m3_of(std::span<const Activation> segments);

// x W^T + bias, [..., out], in the model's type. The segments of x are multiplied with W's columns in order
// and accumulated instead of concatenated; together they fill W. bias [out], may be undefined. Products of
// e4m3 with e4m3 run on the tensor cores of a GPU that has them where type and sizes allow it; all others
// with 8-bit numbers are computed from their values in float.
at::Tensor product(std::span<const Activation> x, const Weight& w, const at::Tensor& bias);

}  // namespace atelier::nn
