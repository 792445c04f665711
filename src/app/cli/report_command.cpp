// atelier report: pages from results, without drawing anything.
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "app/cli/commands.h"
#include "app/cli/parse.h"
#include "app/run/family_rows.h"
#include "app/run/find_model.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json_problem.h"
#include "bench/family_page.h"
#include "bench/output.h"
#include "bench/protocol_page.h"
#include "bench/result.h"

namespace atelier::app {
namespace {

std::filesystem::path file_of(const std::filesystem::path& given) {
  return std::filesystem::is_directory(given) ? given / bench::kResultName : given;
}

// The page of a protocol's folder, made anew from its bench.json and its heat maps.
bench::Document page_of_folder(const std::filesystem::path& folder) {
  const auto file = file_of(folder);
  const Json result = read_json(file);
  if (const auto problems = bench::schema_problems(result); !problems.empty())
    throw Error(Kind::kUsage, str(file.string(), " is no result of a protocol: ", problems.front()));
  std::map<std::string, std::string> pictures;
  try {
    for (const auto& q : result.value("quality", Json::array())) {
      const auto id = q.at("id").get<std::string>();
      const auto picture = file.parent_path() / "heat" / (id + ".webp");
      if (std::filesystem::exists(picture)) pictures[id] = read_file(picture);
    }
    return bench::protocol_page(result, pictures);
  } catch (const Json::exception& e) {
    throw Error(Kind::kUsage, str(file.string(), " is no result of a protocol: ", json_problem(e)));
  }
}

// Without --from: what ships, the files of results/ that hold families.
std::vector<std::filesystem::path> shipped_results(const Environment& variables) {
  std::vector<std::filesystem::path> out;
  const auto folder = share_folder(variables, program_file()) / "results";
  if (!std::filesystem::is_directory(folder)) return out;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const auto name = entry.path().filename().string();
    if (name.starts_with("families_gpus_") && name.ends_with(".json")) out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<bench::FamilyRow> rows_of_family(const std::filesystem::path& file, const std::string& model) {
  const Json found = read_json(file);
  try {
    return bench::family_rows(found, model, file.filename().string());
  } catch (const Json::exception& e) {
    throw Error(Kind::kUsage, str(file.string(), " holds no rows of a bench: ", json_problem(e)));
  }
}

bench::Document page_of_family(const std::string& family, const std::vector<std::string>& from,
                               const Environment& variables) {
  std::vector<std::filesystem::path> files;
  for (const auto& f : from) files.push_back(file_of(f));
  if (files.empty()) files = shipped_results(variables);
  auto query = family_query(family, variables);
  std::vector<bench::FamilyRow> measured;
  for (const auto& file : files) {
    auto rows = rows_of_family(file, model_prefix(family));
    if (rows.empty() && !from.empty())
      throw Error(Kind::kUsage, str(file.string(), " holds no square picture of the family ", family,
                                    " that was timed exactly and alone"));
    std::move(rows.begin(), rows.end(), std::back_inserter(measured));
  }
  bench::add_measured(query, std::move(measured));
  return bench::family_page(query);
}

}  // namespace

int report_command(const Arguments& arguments) {
  CLI::App app(
      "Writes a page from results, without drawing anything. --from FOLDER alone: the page of that benchmark "
      "made anew. "
      "--family NAME: latency and scalability of a family, machine by machine: what was measured (--from "
      "files and "
      "folders; without, those that ship), what the planner expects of the hardware of xDiT's report, and "
      "what that "
      "report says, cited.",
      "atelier report");
  std::string family, folder = ".";
  std::vector<std::string> from;
  app.add_option("--family", family, families_of_report());
  app.add_option("--from", from, "bench.json files, folders with one, or files of results/");
  app.add_option("--output_dir", folder, "where the page goes (this folder)");
  if (!parse_arguments(app, arguments)) return 0;
  if (family.empty() && from.size() != 1)
    throw Error(Kind::kUsage, "report needs --family NAME, or --from with one folder of bench --protocol");
  const auto page = family.empty() ? page_of_folder(from[0]) : page_of_family(family, from, environment());
  if (const auto problems = bench::unlabelled(page); !problems.empty())
    throw Error(Kind::kItem, problems.front());
  const std::string name = family.empty() ? "report" : family;
  bench::write_document(page, folder, name);
  std::cout << (std::filesystem::path(folder) / (name + ".html")).string() << std::endl;
  return 0;
}

}  // namespace atelier::app
