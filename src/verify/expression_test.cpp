// Formulas against numpy's values, Python's precedence, and what must be refused.
#include "verify/expression.h"

#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "nn/testing.h"

namespace atelier::verify {
namespace {

using nn::error_of;
using nn::has;

at::Tensor floats(const Json& values) {
  return at::tensor(values.get<std::vector<float>>());
}
double value(const std::string& text, double x = 3) {
  const auto number = [](double v) { return at::tensor(v, at::TensorOptions(at::kFloat)); };
  return Expression(text)({{"x", number(x)}, {"x_in", number(2 * x)}, {"t", number(500)}}).item<double>();
}

// testdata/formulas.json is made by tests/goldens/formulas.py.
TEST(Expression, ComputesWhatNumpyDoes) {
  const Json rows = read_json("src/verify/testdata/formulas.json");
  ASSERT_EQ(rows.size(), 20u);
  for (const auto& row : rows) {
    const auto text = row.at("text").get<std::string>();
    const auto y =
        Expression(text)({{"x", floats(row.at("x"))},
                          {"x_in", floats(row.at("x_in"))},
                          {"t", at::tensor(row.at("t").get<double>(), at::TensorOptions(at::kFloat))}});
    EXPECT_LT(nn::distance(y, floats(row.at("y"))), 1e-5) << text;
  }
}

TEST(Expression, BindsAsPythonDoes) {
  EXPECT_EQ(value("-x**2"), -9);
  EXPECT_EQ(value("2**-1"), 0.5);
  EXPECT_EQ(value("2**3**2"), 512);
  EXPECT_EQ(value("1 - 2 - 3 + x"), -1);
  EXPECT_EQ(value("24 / 2 / x"), 4);
  EXPECT_EQ(value("+x - -x"), 6);
  EXPECT_EQ(value(" ( ( 2 ) ) * ( x + 1 ) "), 8);
  EXPECT_EQ(value("x_in - x"), 3);
  EXPECT_EQ(value("abs(-x) + sqrt(4) + .5 + 1e1 + 2."), 17.5);
  EXPECT_FLOAT_EQ(value("x - 1/3*9"), 0) << "a division of numbers alone is not rounded to float32";
}

TEST(Expression, EndsWhereProseBegins) {
  EXPECT_FLOAT_EQ(
      value("model(x, t) = 0.1 * x_in + 1.0 * sin(0.01 * t), x_in = scale_model_input(x, t) where the class "
            "has it, t the float timestep, all in float32"),
      0.6 + std::sin(5.0));
  EXPECT_EQ(value("y = x; any words"), 3);
  EXPECT_EQ(value("2 * x where x is a number"), 6);
}

TEST(Expression, NamesTheSymbolThatItDoesNotKnow) {
  const auto refused = [](const std::string& text) {
    return error_of(Kind::kUsage, [&] { Expression e(text); });
  };
  for (const auto& [text, symbol] : std::map<std::string, std::string>{{"0.1 * y", "at y:"},
                                                                       {"log(x)", "at log:"},
                                                                       {"sin x", "at sin without"},
                                                                       {"x % 2", "at %:"},
                                                                       {"x // 2", "at /:"},
                                                                       {"2x", "at x:"},
                                                                       {"x ^ 2", "at ^:"},
                                                                       {"x · 2", "at ·:"},
                                                                       {"(x + 1", "where ) should stand"},
                                                                       {"x + 1)", "at ):"},
                                                                       {"x +", "at the end"},
                                                                       {"", "at the end"},
                                                                       {"x where_else", "at where_else:"},
                                                                       {"pi * x", "at pi:"}}) {
    EXPECT_TRUE(has(refused(text), symbol)) << text << ": " << refused(text);
  }
  EXPECT_TRUE(has(refused(std::string(100000, '(')), "nested too deeply"));
  std::string sum = "x";
  for (int i = 0; i < 200000; ++i) sum += " + x";
  EXPECT_TRUE(has(refused(sum), "too many operations"));
  EXPECT_LT(refused(sum).size(), 500u);
  EXPECT_TRUE(has(error_of(Kind::kUsage, [] { Expression("x")({}); }), "no value for x"));
}

}  // namespace
}  // namespace atelier::verify
