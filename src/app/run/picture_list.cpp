// Reading, joining and writing tables of pictures.
#include "app/run/picture_list.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/files.h"
#include "request/csv.h"

namespace atelier::app {
namespace {

constexpr size_t kPath = 2, kGpu = 8;  // places of columns

// As Python writes it: 7.5, 7.0.
std::string number(double value) {
  return Json(value).dump();
}

}  // namespace

PictureList::PictureList(std::filesystem::path file, std::filesystem::path pictures, bool has_gpus)
    : file_(std::move(file)), pictures_(std::move(pictures)), has_gpus_(has_gpus) {
  read();
}

std::vector<std::string> PictureList::columns() const {
  std::vector<std::string> out{"prompt_id",           "seed",          "path", "prompt", "width", "height",
                               "num_inference_steps", "guidance_scale"};
  if (has_gpus_) out.emplace_back("gpu_id");
  return out;
}

void PictureList::add(const request::Request& r, const std::string& gpu) {
  const auto name = std::filesystem::path(r.name);
  Cells cells{name.parent_path().string(),
              std::to_string(r.seed.value_or(0)),
              (pictures_ / name).string(),
              r.prompt,
              std::to_string(r.width.value_or(0)),
              std::to_string(r.height.value_or(0)),
              std::to_string(r.num_inference_steps.value_or(0)),
              number(r.guidance_scale.value_or(0))};
  if (has_gpus_) cells.push_back(gpu);
  lines_.push_back(std::move(cells));
}

std::vector<PictureList::Cells> PictureList::read() const {
  std::error_code error;
  if (!std::filesystem::exists(file_, error)) return {};
  auto records = request::read_csv(read_file(file_));
  if (records.empty()) return {};
  const auto all = columns();
  if (records.front().cells != all)
    throw Error(
        Kind::kUsage,
        str(file_.string(), " is there, and it is not the table of pictures that this run writes: ",
            "its first line is not ", request::csv_line(all), "; move it, or choose another --output"));
  std::vector<Cells> out;
  for (size_t i = 1; i < records.size(); ++i) {
    if (records[i].cells.size() == all.size()) out.push_back(std::move(records[i].cells));
  }
  return out;
}

void PictureList::write() const {
  std::map<std::string, std::string> gpus;  // by path
  std::vector<Cells> lines;
  std::map<std::string, const Cells*> mine;
  for (const auto& cells : lines_) mine[cells[kPath]] = &cells;
  for (auto& cells : read()) {
    std::error_code error;
    if (has_gpus_) gpus[cells[kPath]] = cells[kGpu];
    if (!mine.contains(cells[kPath]) && std::filesystem::exists(cells[kPath], error))
      lines.push_back(std::move(cells));
  }
  for (Cells cells : lines_) {
    if (has_gpus_ && cells[kGpu].empty()) cells[kGpu] = gpus[cells[kPath]];
    lines.push_back(std::move(cells));
  }
  std::string text = request::csv_line(columns()) + "\n";
  for (const auto& cells : lines) text += request::csv_line(cells) + "\n";
  write_file_atomically(file_, text);
}

}  // namespace atelier::app
