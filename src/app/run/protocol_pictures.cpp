#include "app/run/protocol_pictures.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "bench/checks.h"
#include "bench/result.h"
#include "bench/similarity.h"
#include "media/image.h"

namespace atelier::app {
namespace {

constexpr int kShownSide = 256, kGap = 6, kHeatQuality = 60;

std::filesystem::path pictures_of(const Json& row, const std::filesystem::path& folder) {
  return folder / "pictures" / row.at("id").get<std::string>() / bench::layout_of(row);
}

// The row of one rank that drew the same picture; null: there is none.
const Json* reference_of(const Json& result, const Json& row) {
  const auto& a = row.at("asked");
  for (const auto& other : result.at("rows")) {
    const auto& b = other.at("asked");
    if (bench::gpus_of(other) != 1 || !bench::is_measured(other) || !b.at("graphs").get<bool>()) continue;
    if (b["height"] == a["height"] && b["width"] == a["width"] && b["batch"] == a["batch"]) return &other;
  }
  return nullptr;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Json decibels(double value) {
  return std::isfinite(value) ? Json(value) : Json();  // null: equal pictures
}

// The whole of two folders of pictures with the same names.
class Comparer {
 public:
  void add(const media::Image& picture, const media::Image& reference) {
    const auto s = bench::similarity(picture, reference);
    most_levels_ = std::max(most_levels_, s.most_levels);
    share_ = std::max(share_, s.share);
    psnr_.push_back(s.psnr), ssim_.push_back(s.ssim);
    if (s.most_levels <= bench::kExactLevels || s.psnr > worst_) return;
    worst_ = s.psnr;
    const int factor = std::max(1, picture.height / kShownSide);
    const auto small = [&](const media::Image& p) { return bench::reduced(p, factor); };
    shown_ =
        bench::beside({small(reference), small(picture), small(bench::heat_map(picture, reference))}, kGap);
  }
  bool is_empty() const { return psnr_.empty(); }
  const media::Image& shown() const { return shown_; }
  void add_to(Json& out) const {
    out.update({{"pictures", psnr_.size()},
                {"most_levels", most_levels_},
                {"share", share_},
                {"psnr_median", decibels(median(psnr_))},
                {"psnr_least", decibels(*std::min_element(psnr_.begin(), psnr_.end()))},
                {"ssim_median", median(ssim_)},
                {"ssim_least", *std::min_element(ssim_.begin(), ssim_.end())}});
  }

 private:
  int most_levels_ = 0;
  double share_ = 0, worst_ = std::numeric_limits<double>::infinity();
  std::vector<double> psnr_, ssim_;
  media::Image shown_;
};

Comparer compare_folders(const std::filesystem::path& mine, const std::filesystem::path& reference) {
  Comparer out;
  if (!std::filesystem::exists(mine)) return out;
  for (const auto& entry : std::filesystem::directory_iterator(mine)) {
    const auto other = reference / entry.path().filename();
    if (!media::format_of(entry.path().filename().string()) || !std::filesystem::is_regular_file(other))
      continue;
    out.add(media::decode(read_file(entry.path())), media::decode(read_file(other)));
  }
  return out;
}

}  // namespace

std::map<std::string, std::string> compare_pictures(Json& result, const std::filesystem::path& folder) {
  std::map<std::string, std::string> shown;
  Json quality = Json::array();
  const bool is_random = result.at("asked").at("random_weights").get<bool>();
  for (const auto& row : result.at("rows")) {
    const auto& asked = row.at("asked");
    if (!bench::is_measured(row) || bench::gpus_of(row) < 2 || asked["batch"] != 1 ||
        !asked["graphs"].get<bool>())
      continue;
    const Json* reference = reference_of(result, row);
    const bool is_exact = row["league"] != "approximate";
    Json q{{"id", row["id"]},
           {"asked",
            {{"layout", bench::layout_of(row)}, {"height", asked["height"]}, {"width", asked["width"]}}},
           {"league", row["league"]},
           {"kind", "measured"}};
    if (!reference) {
      q["verdict"] = "not measurable", q["why"] = "one rank did not draw this size";
    } else if (!is_exact && is_random) {
      q["verdict"] = "not measurable",
      q["why"] = "random weights say nothing about the quality of approximate layouts";
    } else {
      const auto compared = compare_folders(pictures_of(row, folder), pictures_of(*reference, folder));
      if (compared.is_empty())
        throw Error(Kind::kItem, str(pictures_of(row, folder).string(), " holds no picture to compare"));
      compared.add_to(q);
      const auto judgement = bench::judge(q, is_exact);
      q["verdict"] = judgement.verdict, q["why"] = judgement.why;
      if (compared.shown().width > 0) {
        const auto id = row["id"].get<std::string>();
        shown[id] = media::encode(compared.shown(), media::Format::kWebp, kHeatQuality);
        write_file_atomically(folder / "heat" / (id + ".webp"), shown[id]);
      }
    }
    quality.push_back(std::move(q));
  }
  result["quality"] = std::move(quality);
  return shown;
}

}  // namespace atelier::app
