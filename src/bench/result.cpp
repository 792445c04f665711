#include "bench/result.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "base/json_problem.h"

namespace atelier::bench {
namespace {

const Json kNothing = Json::array();

const Json& list(const Json& result, const char* key) {
  const auto at = result.find(key);
  return at == result.end() ? kNothing : *at;
}

std::optional<double> value_of(const Json& row, const char* part, const char* what) {
  const auto in = row.find(part);
  if (in == row.end()) return std::nullopt;
  const auto at = in->find(what);
  if (at == in->end()) return std::nullopt;
  if (at->is_number()) return at->get<double>();
  if (at->is_object() && at->contains("median")) return at->at("median").get<double>();
  return std::nullopt;
}

bool is_label(const Json& value) {
  return value == "measured" || value == "modelled" || value == "cited";
}

void find_unlabelled(const Json& value, const std::string& path, bool is_labelled,
                     std::vector<std::string>& out) {
  if (value.is_object()) {
    is_labelled |= is_label(value.value("kind", Json()));
    for (const auto& [key, inner] : value.items())
      find_unlabelled(inner, str(path, "/", key), is_labelled || key == "asked", out);
  } else if (value.is_array()) {
    for (size_t i = 0; i < value.size(); ++i) find_unlabelled(value[i], str(path, "/", i), is_labelled, out);
  } else if (value.is_number() && !is_labelled) {
    out.push_back(path + " is neither measured, modelled nor cited");
  }
}

void find_missing(const Json& in, const std::string& where, std::initializer_list<const char*> keys,
                  std::vector<std::string>& out) {
  for (const char* key : keys) {
    if (!in.contains(key)) out.push_back(str(where, " lacks ", key));
  }
}

void find_missing_in_rows(const Json& result, std::vector<std::string>& out) {
  for (const auto& row : list(result, "rows")) {
    const auto where = "row " + row.value("id", std::string("without id"));
    find_missing(row, where, {"id", "status", "league", "asked"}, out);
    find_missing(row.value("asked", Json::object()), where,
                 {"layout", "gpus", "height", "width", "batch", "graphs", "topics"}, out);
    if (is_measured(row))
      find_missing(
          row.value("measured", Json::object()), where,
          {"ms_per_step", "picture_s", "denoise_s", "pictures_per_second", "peak_memory", "weight_bytes"},
          out);
    else if (row.value("why", "").empty())
      out.push_back(where + " is not measured and does not say why");
  }
}

// Six digits that count: more would claim what was not measured.
Json rounded(const Json& value) {
  if (value.is_number_float()) {
    std::ostringstream text;
    text << value.get<double>();
    return std::stod(text.str());
  }
  Json out = value;
  if (out.is_structured()) {
    for (auto& inner : out) inner = rounded(inner);
  }
  return out;
}

}  // namespace

Json asked_of(const Measurement& m) {
  Json topics = Json::array();
  for (unsigned bit = 1; bit <= static_cast<unsigned>(Topic::kTraffic); bit *= 2) {
    if (m.topics & bit) topics.push_back(name_of(static_cast<Topic>(bit)));
  }
  return {{"strategy", m.strategy}, {"layout", m.strategy},
          {"mode", m.mode},         {"gpus", m.gpus},
          {"height", m.height},     {"width", m.width},
          {"batch", m.batch},       {"graphs", m.has_graphs && !m.is_for(Topic::kTraffic)},
          {"topics", topics}};
}

bool is_measured(const Json& row) {
  return row.value("status", "") == status::kMeasured;
}

std::vector<const Json*> rows_for(const Json& result, Topic topic) {
  std::vector<const Json*> out;
  for (const auto& row : list(result, "rows")) {
    const auto& topics = row.at("asked").at("topics");
    if (std::find(topics.begin(), topics.end(), name_of(topic)) != topics.end()) out.push_back(&row);
  }
  return out;
}

const Json* baseline(const Json& result) {
  for (const auto topic : {Topic::kScaling, Topic::kThroughput}) {
    for (const auto* row : rows_for(result, topic)) {
      if (gpus_of(*row) == 1 && is_measured(*row)) return row;
    }
  }
  return nullptr;
}

const Json* row_named(const Json& result, std::string_view id) {
  for (const auto& row : list(result, "rows")) {
    if (row.value("id", "") == id) return &row;
  }
  return nullptr;
}

std::optional<double> measured(const Json& row, const char* what) {
  return value_of(row, "measured", what);
}

std::optional<double> modelled(const Json& row, const char* what) {
  return value_of(row, "modelled", what);
}

std::string layout_of(const Json& row) {
  return row.at("asked").at("layout").get<std::string>();
}

int gpus_of(const Json& row) {
  return row.at("asked").at("gpus").get<int>();
}

std::vector<double> peaks(const Json& row) {
  std::vector<double> out;
  const auto at = row.find("measured");
  if (at == row.end() || !at->contains("peak_memory")) return out;
  for (const auto& rank : at->at("peak_memory")) {
    const double device = number(rank, "device_bytes");
    out.push_back(device > 0 ? device : number(rank, "host_bytes"));
  }
  return out;
}

const Json* quality_of(const Json& result, const Json& row) {
  for (const auto& q : list(result, "quality")) {
    if (q.value("id", "") == row.value("id", "-")) return &q;
  }
  return nullptr;
}

bool is_on_gpus(const Json& result) {
  return number(result.value("machine", Json::object()), "gpus") > 0 &&
         result.at("asked").value("device", "") != "cpu";
}

double number(const Json& object, const char* key, double otherwise) {
  const auto at = object.find(key);
  return at != object.end() && at->is_number() ? at->get<double>() : otherwise;
}

namespace {

// Throws Json::exception where a value is of another type than its place.
std::vector<std::string> problems_of_fields(const Json& result) {
  std::vector<std::string> out;
  if (result.value("schema", "") != kSchema) out.push_back(str("the schema is not ", kSchema));
  find_missing(result, "the result",
               {"protocol", "atelier", "command", "started", "inside", "asked", "machine", "rows"}, out);
  find_missing(result.value("asked", Json::object()), "asked",
               {"model", "device", "height", "width", "steps", "dtype", "tier", "runs", "warmups",
                "text_tokens", "branches", "sampler", "random_weights"},
               out);
  find_missing(result.value("machine", Json::object()), "machine",
               {"kind", "device", "processor", "cores", "gpus", "torch", "driver", "cuda", "nccl",
                "clock_mhz", "power_limit_w"},
               out);
  find_missing_in_rows(result, out);
  find_unlabelled(result, "", false, out);
  return out;
}

}  // namespace

std::vector<std::string> schema_problems(const Json& result) {
  try {
    return problems_of_fields(result);
  } catch (const Json::exception& e) {
    return {json_problem(e)};
  }
}

std::string to_text(const Json& result) {
  const auto dump = [](const Json& j) {
    return rounded(j).dump(-1, ' ', false, Json::error_handler_t::replace);
  };
  std::string out = "{\n";
  bool is_first = true;
  for (const auto& [key, value] : result.items()) {
    out += str(is_first ? "" : ",\n", dump(key), ": ");
    is_first = false;
    if (!value.is_array() || value.empty()) {
      out += dump(value);
      continue;
    }
    for (size_t i = 0; i < value.size(); ++i) out += str(i == 0 ? "[\n " : ",\n ", dump(value[i]));
    out += ']';
  }
  return out + "\n}\n";
}

}  // namespace atelier::bench
