// Formulas as golden folders write them: "model(x, t) = 0.1 * x_in + sin(0.01 * t), t the float timestep".
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace atelier::verify {

// Operators + - * / ** with Python's precedence, parentheses, numbers, and sin cos exp tanh sqrt abs of the
// variables x, x_in and t. Arithmetic is float32; what holds no variable is computed in double and rounded
// once, as numpy and torch do.
class Expression {
 public:
  using Variables = std::map<std::string, at::Tensor>;

  // `text` may begin with "NAME(ARGUMENTS) =" and ends at a comma, a semicolon or the word "where": prose
  // follows. Throws Error(kUsage) naming the symbol that is not understood.
  explicit Expression(std::string_view text);

  // Values of x, x_in and t, float32 and broadcast against each other; the result has their shape. Throws
  // Error(kUsage) for a variable without a value.
  at::Tensor operator()(const Variables& variables) const { return value_(variables); }

 private:
  std::function<at::Tensor(const Variables&)> value_;
};

}  // namespace atelier::verify
