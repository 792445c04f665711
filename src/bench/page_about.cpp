// Of a protocol's page: quality, the machine, figures of documents; and the page as a whole.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "bench/checks.h"
#include "bench/cited.h"
#include "bench/page_parts.h"
#include "bench/protocol.h"
#include "bench/protocol_page.h"
#include "bench/result.h"
#include "bench/similarity.h"

namespace atelier::bench {
namespace {

Cell decibels(const Json& q, const char* key) {
  if (q.contains(key) && q[key].is_number()) return measured_cell(number(q, key));
  return {q.contains(key) ? "equal pictures" : ""};
}

std::string shown(const Json& value) {
  return value.is_string()   ? value.get<std::string>()
         : value.is_number() ? number_text(value.get<double>())
                             : value.dump();
}

PageSection notes_section(const Json& result) {
  PageSection out{.id = "notes", .title = "Notes"};
  for (const auto* key : {"notes", "problems"}) {
    for (const auto& note : result.value(key, Json::array()))
      out.lines.push_back({note.get<std::string>(), Basis::kMeasured});
  }
  for (const auto& row : result.at("rows")) {
    if (const auto why = row.value("why", ""); !why.empty())
      out.lines.push_back(
          {str(row["id"].get<std::string>(), ": ", row["status"].get<std::string>(), ", ", why),
           Basis::kMeasured});
  }
  if (out.lines.empty()) out.lines.push_back({"Nothing was done otherwise than asked."});
  return out;
}

std::vector<Line> lead_of(const Json& result) {
  const auto& a = result.at("asked");
  const auto& m = result.at("machine");
  std::vector<Line> out;
  out.push_back(
      {str(a.value("model", ""), ", ", number(a, "width"), "x", number(a, "height"), " px, ",
           number(a, "steps"), " steps, batch ", number(a, "batch"), ", ", a.value("dtype", ""), ", tier ",
           a.value("tier", ""), a.value("attention_dtype", "auto") == "auto" ? "" : ", attention in e4m3",
           ", ", number(a, "text_tokens"), " text tokens, ", number(a, "branches"),
           number(a, "branches") == 1 ? " branch" : " branches", "; ", number(a, "runs"), " runs after ",
           number(a, "warmups"), " that do not count"),
       Basis::kAsked});
  out.push_back({str(m.value("device", ""), ", ", m.value("processor", ""), "; atelier ",
                     result.value("atelier", ""), ", ", result.value("started", "")),
                 Basis::kMeasured});
  if (a.value("random_weights", false))
    out.push_back({"Weights are random numbers: times and memory are those of the model, pictures are not."});
  out.push_back({"In the times: " + result.value("inside", "") + "."});
  out.push_back({"Bound by " + bound_by(result) + ".", Basis::kMeasured});
  out.push_back({"Made by: " + result.value("command", ""), Basis::kAsked});
  out.push_back(
      {"Bold numbers are measured here; italic ones are modelled by the planner; grey ones are cited, were "
       "measured "
       "by others on other hardware, and stand in columns of their own."});
  return out;
}

}  // namespace

PageSection quality_section(const Json& result, const std::map<std::string, std::string>& pictures) {
  PageSection out{.id = "quality", .title = "Quality"};
  Table table{
      "quality",
      "Against the picture of one GPU, same seeds and steps",
      {"layout", "size", "league", "pictures", "largest difference, levels of 255",
       "share of values that differ", "PSNR, dB: median", "least", "SSIM: median", "least", "verdict", "why"},
      {}};
  for (const auto& q : result.value("quality", Json::array())) {
    const auto cell = [&](const char* key) {
      return q.contains(key) ? measured_cell(number(q, key)) : Cell{};
    };
    const auto& size = q.at("asked");
    table.rows.push_back({asked(layout_of(q)),
                          asked(str(number(size, "width"), "x", number(size, "height"))),
                          {q.value("league", "")},
                          cell("pictures"),
                          cell("most_levels"),
                          cell("share"),
                          decibels(q, "psnr_median"),
                          decibels(q, "psnr_least"),
                          cell("ssim_median"),
                          cell("ssim_least"),
                          {q.value("verdict", "")},
                          asked(q.value("why", ""))});
    const auto at = pictures.find(q.value("id", ""));
    if (at == pictures.end()) continue;
    out.pictures.push_back({"heat-" + at->first,
                            str(is_on_gpus(result) ? "One GPU, " : "One rank, ", layout_of(q),
                                ", and their difference: black is none, white ", kHottest,
                                " levels and more. Verdict: ", q.value("verdict", "")),
                            Basis::kMeasured, "image/webp", at->second});
  }
  if (table.rows.empty()) {
    out.lines.push_back({"Not measured here: it needs more than one rank."});
  } else {
    out.tables.push_back(table);
  }
  return out;
}

PageSection cited_section() {
  PageSection out{.id = "reference", .title = "Figures of the documents"};
  Table table{"cited",
              "What others measured, on their hardware",
              {"what", "figure", "hardware", "model", "steps", "compiled", "source", "remark"},
              {}};
  const auto cite = [](std::string_view text) {
    return text.empty() ? Cell{} : Cell{std::string(text), Basis::kCited};
  };
  for (const auto& f : cited_figures())
    table.rows.push_back({cite(f.what), cite(f.value), cite(f.hardware), cite(f.model), cite(f.steps),
                          cite(f.compile), cite(f.source), cite(f.remark)});
  out.tables.push_back(table);
  return out;
}

PageSection machine_section(const Json& result) {
  PageSection out{.id = "machine", .title = "Machine"};
  Table table{"machine", "As it was found", {"what", "found"}, {}};
  for (const auto& [key, value] : result.at("machine").items()) {
    if (key == "kind") continue;
    if (value.is_null()) {
      table.rows.push_back({{key}, {"not readable here"}});
    } else {
      table.rows.push_back({{key}, {shown(value), Basis::kMeasured}});
    }
  }
  out.tables.push_back(table);
  return out;
}

namespace {

// Ranks of a CPU are no GPUs.
void say_ranks(PageSection& section) {
  const auto say = [](std::string& text) {
    for (const auto& [gpu, rank] : {std::pair{"GPUs", "ranks"}, {"GPU", "rank"}}) {
      for (size_t at = text.find(gpu); at != std::string::npos; at = text.find(gpu, at))
        text.replace(at, std::string_view(gpu).size(), rank);
    }
  };
  for (auto& table : section.tables) {
    say(table.title);
    for (auto& column : table.columns) say(column);
    for (auto& row : table.rows)
      if (!row.empty() && row[0].source == Basis::kText) say(row[0].text);
  }
  for (auto& chart : section.charts) {
    say(chart.title);
    for (auto& category : chart.categories) say(category);
  }
}

}  // namespace

Document protocol_page(const Json& result, const std::map<std::string, std::string>& pictures) {
  const bool is_whole = result.value("protocol", "") == kWholeProtocol;
  Document out{.title = str("Benchmark of ", result.at("asked").value("model", "")),
               .lead = lead_of(result),
               .sections = {}};
  auto& s = out.sections;
  if (is_whole) s.push_back(checks_section(result));
  s.push_back(baseline_section(result));
  if (is_whole) {
    s.push_back(scaling_section(result));
    s.push_back(strategies_section(result));
    s.push_back(memory_section(result));
    s.push_back(traffic_section(result));
    s.push_back(quality_section(result, pictures));
    s.push_back(sizes_section(result));
  }
  s.push_back(batches_section(result));
  s.push_back(throughput_section(result));
  for (size_t i = is_whole ? 1 : 0; !is_on_gpus(result) && i < s.size(); ++i) say_ranks(s[i]);
  s.push_back(cited_section());
  s.push_back(machine_section(result));
  s.push_back(notes_section(result));
  return out;
}

}  // namespace atelier::bench
