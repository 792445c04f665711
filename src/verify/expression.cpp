// Formulas of golden folders: a recursive descent over the text that leaves nested functions.
#include "verify/expression.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/tanh.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <functional>
#include <variant>

#include "base/error.h"

namespace atelier::verify {
namespace {

using Value = std::variant<double, at::Tensor>;  // a number until it meets a variable

struct Function {
  std::string_view name;
  double (*of_number)(double);
  at::Tensor (*of_tensor)(const at::Tensor&);
};
constexpr std::array<Function, 6> kFunctions{{
    {"sin", [](double v) { return std::sin(v); }, [](const at::Tensor& v) { return at::sin(v); }},
    {"cos", [](double v) { return std::cos(v); }, [](const at::Tensor& v) { return at::cos(v); }},
    {"exp", [](double v) { return std::exp(v); }, [](const at::Tensor& v) { return at::exp(v); }},
    {"tanh", [](double v) { return std::tanh(v); }, [](const at::Tensor& v) { return at::tanh(v); }},
    {"sqrt", [](double v) { return std::sqrt(v); }, [](const at::Tensor& v) { return at::sqrt(v); }},
    {"abs", [](double v) { return std::abs(v); }, [](const at::Tensor& v) { return at::abs(v); }},
}};

at::Tensor power(const Value& a, const Value& b) {
  if (const auto* base = std::get_if<double>(&a)) return at::pow(at::Scalar(*base), std::get<at::Tensor>(b));
  const auto& base = std::get<at::Tensor>(a);
  if (const auto* exponent = std::get_if<double>(&b)) return at::pow(base, at::Scalar(*exponent));
  return at::pow(base, std::get<at::Tensor>(b));
}

Value combine(char op, const Value& a, const Value& b) {
  const auto with = [op](const auto& l, const auto& r) -> Value {
    switch (op) {
      case '+':
        return l + r;
      case '-':
        return l - r;
      case '*':
        return l * r;
      default:
        return l / r;
    }
  };
  if (std::holds_alternative<double>(a) && std::holds_alternative<double>(b)) {
    const double l = std::get<double>(a), r = std::get<double>(b);
    return op == '^' ? Value(std::pow(l, r)) : with(l, r);
  }
  if (op == '^') return power(a, b);
  return std::visit([&](const auto& l) { return std::visit([&](const auto& r) { return with(l, r); }, b); },
                    a);
}

using Evaluate = std::function<Value(const Expression::Variables&)>;

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text), rest_(text) {}

  Evaluate formula() {
    skip_head();
    auto whole = sum();
    skip_space();
    const bool ends = rest_.empty() || rest_.front() == ',' || rest_.front() == ';' || word() == "where";
    if (!ends) refuse(symbol());
    return whole;
  }

 private:
  // "model(x, t) =", "y =".
  void skip_head() {
    skip_space();
    auto head = rest_;
    head.remove_prefix(word().size());
    if (head.size() < rest_.size() && head.starts_with('('))
      head.remove_prefix(std::min(head.find(')') + 1, head.size()));
    while (head.starts_with(' ')) head.remove_prefix(1);
    if (head.starts_with('=')) rest_ = head.substr(1);
  }

  Evaluate sum() {
    auto left = product();
    for (char op = one_of("+-"); op != 0; op = one_of("+-")) left = binary(op, std::move(left), product());
    return left;
  }

  Evaluate product() {
    auto left = sign();
    for (char op = one_of("*/"); op != 0; op = one_of("*/")) left = binary(op, std::move(left), sign());
    return left;
  }

  // -x ** 2 is -(x ** 2), 2 ** -x is 2 ** (-x).
  Evaluate sign() {
    const Depth deeper(*this);
    const char op = one_of("+-");
    if (op == 0) return raised();
    return binary(
        op, [](const auto&) { return Value(0.0); }, sign());
  }

  Evaluate raised() {
    auto base = atom();
    skip_space();
    if (!rest_.starts_with("**")) return base;
    rest_.remove_prefix(2);
    return binary('^', std::move(base), sign());
  }

  Evaluate atom() {
    skip_space();
    if (one_of("(") != 0) return closed(sum());
    if (rest_.empty()) refuse("the end, where a number or a name should stand");
    if (is_digit(rest_.front()) || rest_.front() == '.') return number();
    const std::string name(word());
    if (name.empty()) refuse(symbol());
    for (const auto& f : kFunctions) {
      if (f.name == name) return call(f);
    }
    if (name != "x" && name != "x_in" && name != "t") refuse(name);
    rest_.remove_prefix(name.size());
    return [name](const auto& variables) -> Value {
      const auto found = variables.find(name);
      if (found == variables.end()) throw Error(Kind::kUsage, str("there is no value for ", name));
      return found->second;
    };
  }

  Evaluate call(const Function& f) {
    rest_.remove_prefix(f.name.size());
    if (one_of("(") == 0) refuse(str(f.name, " without its argument"));
    return [f, of = closed(sum())](const auto& variables) -> Value {
      const auto v = of(variables);
      if (const auto* n = std::get_if<double>(&v)) return f.of_number(*n);
      return f.of_tensor(std::get<at::Tensor>(v));
    };
  }

  Evaluate number() {
    double value = 0;
    const auto parsed = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (parsed.ec != std::errc()) refuse(symbol());
    rest_.remove_prefix(static_cast<size_t>(parsed.ptr - rest_.data()));
    return [value](const auto&) { return Value(value); };
  }

  Evaluate binary(char op, Evaluate left, Evaluate right) {
    if (++operations_ > kMostOperations) refuse("the end of what is read: it has too many operations");
    return [op, l = std::move(left), r = std::move(right)](const auto& variables) {
      return combine(op, l(variables), r(variables));
    };
  }

  Evaluate closed(Evaluate inner) {
    if (one_of(")") == 0) refuse(rest_.empty() ? "the end, where ) should stand" : symbol());
    return inner;
  }

  // The next character if it is one of these, taken; "*" is not the beginning of "**".
  char one_of(std::string_view which) {
    skip_space();
    if (rest_.empty() || which.find(rest_.front()) == std::string_view::npos || rest_.starts_with("**"))
      return 0;
    const char c = rest_.front();
    rest_.remove_prefix(1);
    return c;
  }

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
  void skip_space() {
    while (!rest_.empty() && (rest_.front() == ' ' || rest_.front() == '\t' || rest_.front() == '\n'))
      rest_.remove_prefix(1);
  }
  std::string_view word() const {
    size_t n = 0;
    while (n < rest_.size() && (is_letter(rest_[n]) || (n > 0 && is_digit(rest_[n])))) ++n;
    return rest_.substr(0, n);
  }
  // For messages: a word, or one character with all its bytes.
  std::string symbol() const {
    if (rest_.empty()) return "the end";
    if (const auto w = word(); !w.empty()) return std::string(w);
    size_t n = 1;
    while (n < rest_.size() && (static_cast<unsigned char>(rest_[n]) & 0xC0) == 0x80) ++n;
    return std::string(rest_.substr(0, n));
  }
  [[noreturn]] void refuse(const std::string& what) const {
    constexpr size_t kMostShown = 200;
    throw Error(
        Kind::kUsage,
        str("the formula \"", text_.substr(0, kMostShown), text_.size() > kMostShown ? "..." : "",
            "\" is not understood at ", what,
            ": known are + - * / **, parentheses, numbers, sin cos exp tanh sqrt abs, x, x_in and t"));
  }

  // Nesting is bounded, so that no text can exhaust the stack.
  class Depth {
   public:
    explicit Depth(Parser& p) : parser_(p) {
      if (++parser_.depth_ > kDeepest) parser_.refuse("parentheses nested too deeply");
    }
    ~Depth() { --parser_.depth_; }
    Depth(const Depth&) = delete;

   private:
    Parser& parser_;
  };
  // A sum is a call within a call for each of its terms.
  static constexpr int kDeepest = 200, kMostOperations = 1000;

  const std::string_view text_;
  std::string_view rest_;
  int depth_ = 0, operations_ = 0;
};

}  // namespace

Expression::Expression(std::string_view text)
    : value_([formula = Parser(text).formula()](const Variables& variables) {
        const auto value = formula(variables);
        if (const auto* t = std::get_if<at::Tensor>(&value)) return *t;
        return at::full({}, std::get<double>(value), at::TensorOptions(at::kFloat));
      }) {}

}  // namespace atelier::verify
