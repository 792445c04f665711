#include "bench/compare.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/text.h"
#include "bench/document.h"
#include "bench/result.h"

namespace atelier::bench {
namespace {

struct Quantity {
  const char* name;
  bool is_better_high;
};
constexpr Quantity kQuantities[] = {
    {"ms_per_step", false}, {"picture_s", false}, {"pictures_per_second", true}, {"peak_bytes", false}};

Entry::Number of_series(const Json& series, int runs) {
  Entry::Number out{number(series, "median"), 0, static_cast<int>(number(series, "count", runs))};
  const double high = number(series, "p90", number(series, "max", out.value)),
               low = number(series, "min", out.value);
  if (out.value > 0) out.noise = (high - low) / (2 * out.value);
  return out;
}

double most_bytes(const Json& m) {
  double most = 0;
  for (const auto& rank : m.value("peak_memory", Json::array()))
    most = std::max({most, number(rank, "device_bytes"),
                     number(rank, "device_bytes") > 0 ? 0 : number(rank, "host_bytes")});
  for (const auto& bytes : m.value("peak_bytes", Json::array())) most = std::max(most, bytes.get<double>());
  return most;
}

void add_numbers(const Json& m, Entry& entry) {
  const int runs = static_cast<int>(number(m, "runs", 1));
  for (const auto* key : {"ms_per_step", "picture_s"}) {
    if (m.contains(key) && m[key].is_object()) entry.numbers[key] = of_series(m[key], runs);
  }
  if (const double rate = number(m, "pictures_per_second"); rate > 0) {
    Entry::Number n{rate, 0, runs};
    if (const auto whole = entry.numbers.find("picture_s"); whole != entry.numbers.end())
      n.noise = whole->second.noise, n.runs = whole->second.runs;
    entry.numbers["pictures_per_second"] = n;
  }
  constexpr int kAlways = 1 << 20;  // a peak needs no second run
  if (const double bytes = most_bytes(m); bytes > 0) entry.numbers["peak_bytes"] = {bytes, 0, kAlways};
}

std::string without_index(const std::string& device) {
  return device.substr(0, device.find(" ("));
}

// What a step computes in, apart from its number type: other results, other rows.
std::string eight_bits_of(const Json& said) {
  const auto attention = said.value("attention_dtype", "auto");
  return said.value("tier", "exact") + (attention == "auto" ? "" : " attention " + attention);
}

Entry of_protocol(const Json& result, const Json& row) {
  const auto& a = result.at("asked");
  Entry out{.name = str(a.value("model", ""), " ", row.value("id", ""), " steps ", number(a, "steps"), " ",
                        a.value("dtype", ""), " ", eight_bits_of(a)),
            .device = without_index(result.at("machine").value("device", ""))};
  if (is_measured(row)) {
    add_numbers(row.at("measured"), out);
  } else {
    out.problem = row.value("why", row.value("status", ""));
  }
  return out;
}

Entry of_row(const Json& row, const std::string& name) {
  Entry out{.name = name,
            .device = without_index(row.value("device", "")),
            .numbers = {},
            .problem = row.value("problem", "")};
  if (out.name.empty()) {
    const auto tier = eight_bits_of(
        row.contains("tier") ? row : row.value("settings", Json::object()).value("engine", Json::object()));
    out.name = str(row.value("model", ""), " ", row.value("layout", ""), " ", number(row, "width"), "x",
                   number(row, "height"), " batch ", number(row, "batch", 1), " steps ", number(row, "steps"),
                   " ", row.value("dtype", ""), " ", tier);
  }
  if (out.problem.empty()) add_numbers(row, out);
  return out;
}

Delta compare_numbers(const Entry& a, const Entry& b, const Quantity& q, const GateRule& rule) {
  const auto &x = a.numbers.at(q.name), &y = b.numbers.at(q.name);
  Delta out{.name = a.name, .quantity = q.name, .before = x.value, .after = y.value};
  out.limit = std::max({rule.tolerance, x.noise, y.noise});
  out.change = q.is_better_high ? x.value / y.value - 1 : y.value / x.value - 1;
  if (std::min(x.runs, y.runs) < rule.least_runs) {
    out.outcome = Outcome::kTooFewRuns;
  } else if (out.change > out.limit) {
    out.outcome = Outcome::kWorse;
  } else if (-out.change > out.limit) {
    out.outcome = Outcome::kBetter;
  }
  return out;
}

const char* name_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::kSame:
      return "same";
    case Outcome::kBetter:
      return "better";
    case Outcome::kWorse:
      return "WORSE";
    case Outcome::kGone:
      return "GONE";
    case Outcome::kTooFewRuns:
      return "too few runs";
  }
  return "";
}

// What is here, and was not slowed down by a trace.
bool is_timed(const Json& row) {
  const auto& topics = row.at("asked").at("topics");
  return row.value("status", "") != status::kNotHere && topics != Json::array({name_of(Topic::kTraffic)});
}

void check_devices(const std::vector<Entry>& before, const std::vector<Entry>& after) {
  std::set<std::string> a, b;
  for (const auto& e : before) a.insert(e.device);
  for (const auto& e : after) b.insert(e.device);
  a.erase(""), b.erase("");
  if (a.empty() || b.empty() || a == b) return;
  const auto text = [](const std::set<std::string>& names) {
    std::string out;
    for (const auto& n : names) out += (out.empty() ? "" : ", ") + n;
    return out;
  };
  throw Error(Kind::kUsage, str("the first was measured on ", text(a), ", the second on ", text(b),
                                ": only runs of the same device can be compared"));
}

}  // namespace

std::vector<Entry> entries_of(const Json& result, const std::string& where) {
  const auto rows = result.is_object() ? result.find("rows") : result.end();
  if (!result.is_object() || rows == result.end())
    throw Error(Kind::kUsage,
                str(where, " holds no rows: give a bench.json, a folder with one, or a file of results/"));
  std::vector<Entry> out;
  for (const auto& [key, row] : rows->items()) {
    if (result.value("schema", "") == kSchema) {
      if (is_timed(row)) out.push_back(of_protocol(result, row));
    } else {
      out.push_back(of_row(row, rows->is_object() ? key : ""));
    }
  }
  return out;
}

std::vector<Delta> compare(const std::vector<Entry>& before, const std::vector<Entry>& after,
                           const GateRule& rule) {
  check_devices(before, after);
  std::vector<Delta> out;
  bool has_common = false;
  for (const auto& a : before) {
    if (a.numbers.empty()) continue;
    const auto b = std::find_if(after.begin(), after.end(), [&](const Entry& e) { return e.name == a.name; });
    has_common |= b != after.end();
    if (b == after.end() || b->numbers.empty()) {
      const std::string why = b == after.end() ? "not in the second result" : b->problem;
      out.push_back({.name = a.name, .quantity = why, .outcome = Outcome::kGone});
      continue;
    }
    for (const auto& q : kQuantities) {
      if (a.numbers.contains(q.name) && b->numbers.contains(q.name))
        out.push_back(compare_numbers(a, *b, q, rule));
    }
  }
  if (!has_common)
    throw Error(Kind::kUsage,
                "the two results have no measurement in common: model, layout, size, batch, steps and type "
                "must agree");
  return out;
}

bool is_regression(const std::vector<Delta>& comparisons) {
  return std::any_of(comparisons.begin(), comparisons.end(), [](const Delta& c) {
    return c.outcome == Outcome::kWorse || c.outcome == Outcome::kGone;
  });
}

std::string line_of(const Delta& c) {
  std::string out = str(name_of(c.outcome), "  ", c.name, ": ", c.quantity);
  if (c.outcome == Outcome::kGone) return out;
  const double percent = std::round(1000 * c.change) / 10;
  return out + str(" ", number_text(c.before), " -> ", number_text(c.after), ", ", std::abs(percent), " % ",
                   percent > 0 ? "worse" : "better", " (counts above ", std::round(1000 * c.limit) / 10,
                   " %)");
}

Json to_json(const std::vector<Delta>& comparisons, const GateRule& rule) {
  Json rows = Json::array();
  for (const auto& c : comparisons) {
    Json row{{"name", c.name},
             {"quantity", c.quantity},
             {"outcome", lower(name_of(c.outcome))},
             {"kind", "measured"}};
    if (c.outcome != Outcome::kGone)
      row.update({{"before", c.before}, {"after", c.after}, {"change", c.change}, {"limit", c.limit}});
    rows.push_back(std::move(row));
  }
  return {{"schema", "atelier-compare-1"},
          {"asked", {{"tolerance", rule.tolerance}, {"least_runs", rule.least_runs}}},
          {"regression", is_regression(comparisons)},
          {"rows", std::move(rows)}};
}

}  // namespace atelier::bench
