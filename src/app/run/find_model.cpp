// Finding models.
#include "app/run/find_model.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "app/settings/home.h"
#include "base/error.h"
#include "base/quote.h"
#include "base/secrets.h"
#include "base/text.h"
#include "hub/download.h"
#include "hub/sources.h"
#include "models/family.h"
#include "models/presets.h"
#include "pipeline/single_file.h"
#include "report/clock.h"

namespace atelier::app {
namespace {
namespace fs = std::filesystem;

constexpr std::string_view kDummyPrefix = "dummy:";

hub::SourceOptions source_options(const ModelSettings& m, const Environment& environment) {
  hub::SourceOptions o;
  o.built_in = share_folder(environment, program_file()) / "models";
  o.cache = m.cache_dir.empty() ? hub_folder(environment) : fs::path(expand_home(m.cache_dir, environment));
  o.revision = m.revision;
  return o;
}

// A line per file and per tenth of the whole.
std::function<void(const hub::DownloadProgress&)> teller(
    const std::function<void(const std::string&)>& tell) {
  auto last = std::make_shared<std::pair<std::string, int64_t>>("", -1);
  return [tell, last](const hub::DownloadProgress& p) {
    const int64_t tenth = p.total > 0 ? p.done * 10 / p.total : 0;
    if (p.file == last->first && tenth == last->second) return;
    *last = {p.file, tenth};
    tell(str("download  ", p.file, "  ", report::bytes_text(p.done), " of ", report::bytes_text(p.total)));
  };
}

std::string families() {
  std::string known;
  for (const auto* f : models::families()) known += (known.empty() ? "" : ", ") + std::string(f->name);
  return known;
}

hub::ModelSource download(const ModelSettings& m, const Environment& environment,
                          const hub::SourceOptions& where,
                          const std::function<void(const std::string&)>& tell, const std::stop_token& stop) {
  hub::DownloadOptions o;
  if (const std::string endpoint = value_of(environment, "HF_ENDPOINT"); !endpoint.empty()) {
    if (!endpoint.starts_with("https://") && !endpoint.starts_with("http://"))
      throw Error(Kind::kUsage, "HF_ENDPOINT must begin with https:// or http://, found " +
                                    in_quotes(hide_secrets_of_url(endpoint)));
    o.endpoint = endpoint;
  }
  o.token = hub_token(environment);
  o.cache = where.cache;
  o.revision = m.revision;
  o.progress = teller(tell);
  o.check = [&](const Json& index) {
    const auto named = index.is_object() ? index.find("_class_name") : index.end();
    const std::string pipeline =
        named != index.end() && named->is_string() ? named->get<std::string>() : "nothing";
    if (models::find_family(pipeline)) return;
    throw Error(Kind::kUsage, str(m.model_name, " is a ", pipeline,
                                  ", which this build cannot draw with; nothing more "
                                  "of it is fetched. Families of this build: ",
                                  families()));
  };
  return hub::download(hub::hub_id(m.model_name), o, stop);
}

hub::ModelSource source_of(const ModelSettings& m, const Environment& environment,
                           const std::function<void(const std::string&)>& tell, const std::stop_token& stop) {
  const auto options = source_options(m, environment);
  try {
    return hub::resolve(m.model_name, options);
  } catch (const hub::NotHere& e) {
    if (!m.download || hub::hub_id(m.model_name).empty())
      throw Error(
          e.kind(),
          str(e.what(), ", or run the same command with --download; families of this build: ", families()));
    if (const std::string offline = offline_variable(environment); !offline.empty())
      throw Error(e.kind(), str(e.what(), "; nothing is fetched, as ", offline, "=",
                                value_of(environment, offline), " is set: unset it for --download"));
  }
  return download(m, environment, options, tell, stop);
}

FoundModel open_dummy(const ModelSettings& m, const std::string& preset, const std::string& parts) {
  pipeline::ModelSpec spec{.preset = preset, .dummy_seed = m.dummy_seed.value_or(0), .parts = parts};
  auto folder = pipeline::open_model(spec);
  return {spec, std::move(folder), preset, str("dummy weights, seed ", spec.dummy_seed), "", false};
}

// However the path to it is spelled.
std::string own_name(const fs::path& file) {
  std::error_code error;
  const fs::path real = fs::canonical(file, error);
  return (error || !real.has_filename() ? file : real).filename().string();
}

// The expert that a file's name says it is: "high" or "low". Empty: none.
std::string expert_in(const fs::path& file) {
  std::string name = lower(file.filename().string());
  std::replace(name.begin(), name.end(), '-', '_');
  const bool is_high = name.find("high_noise") != name.npos || name.find("highnoise") != name.npos;
  const bool is_low = name.find("low_noise") != name.npos || name.find("lownoise") != name.npos;
  return is_high == is_low ? "" : is_high ? "high" : "low";
}

// Of files too large to be read whole: the same size, and the same bytes at 64 places.
bool hold_the_same(const fs::path& a, const fs::path& b) {
  constexpr int kPlaces = 64, kEach = 4096;
  const auto size = fs::file_size(a);
  if (fs::equivalent(a, b)) return true;
  if (size != fs::file_size(b)) return false;
  std::ifstream one(a, std::ios::binary), other(b, std::ios::binary);
  std::array<char, kEach> left{}, right{};
  for (int i = 0; i < kPlaces; ++i) {
    const auto at = static_cast<std::streamoff>(size / kPlaces * i);
    one.clear(), other.clear();
    one.seekg(at).read(left.data(), kEach);
    other.seekg(at).read(right.data(), kEach);
    if (left != right) return false;
  }
  return true;
}

// The file of the second expert. Throws Error(kUsage) where it is that of the first, by its name or by what
// it holds.
fs::path second_file(const ModelSettings& m, const pipeline::ModelSpec& spec) {
  const fs::path first = spec.single_file, second = m.transformer_2;
  if (first.empty() || spec.folder.empty())
    throw Error(Kind::kUsage,
                "--transformer_2 is for two single files, one of each expert: name that of high noise with "
                "--model_name, and a diffusers folder with --base_model");
  if (!fs::is_regular_file(second))
    throw Error(Kind::kUsage, str("--transformer_2: ", second.string(), " is no file"));
  const std::string both = str("--model_name ", first.string(), " and --transformer_2 ", second.string());
  const auto by_first = expert_in(first), by_second = expert_in(second);
  if (!by_first.empty() && by_first == by_second)
    throw Error(Kind::kUsage,
                str(both, " are both of ", by_first, " noise by their names: name a file of each"));
  if (by_first == "low" || by_second == "high")
    throw Error(Kind::kUsage, str(both,
                                  ": the other way round, by their names; --model_name is the expert of "
                                  "high noise, which begins"));
  if (hold_the_same(first, second))
    throw Error(Kind::kUsage, str(both, " hold the same weights: name a file of each expert"));
  return second;
}

FoundModel open_source(const ModelSettings& m, const hub::ModelSource& source,
                       const hub::SourceOptions& options, const std::string& parts) {
  pipeline::ModelSpec spec{.folder = source.folder, .parts = parts};
  const bool is_file = fs::is_regular_file(source.folder);
  if (is_file && m.base_model.empty() && parts != "denoiser") {
    const std::string contents = pipeline::contents_of(source.folder);
    throw Error(
        Kind::kUsage,
        str(source.folder.string(), " is a single file", contents.empty() ? "" : " and holds " + contents,
            ": name a diffusers folder with --base_model, for configurations, tokenizers and "
            "the parts that the file lacks"));
  }
  if (!is_file && !m.base_model.empty()) {
    throw Error(Kind::kUsage, str("--base_model is for a single .safetensors or .gguf file; ",
                                  source.folder.string(), " is a folder"));
  }
  if (is_file) {
    spec.single_file = source.folder;
    spec.folder = m.base_model.empty() ? fs::path() : hub::resolve(m.base_model, options).folder;
  }
  if (!m.transformer_2.empty()) spec.second_file = second_file(m, spec);
  auto folder = pipeline::open_model(spec);
  const bool is_hub = source.how == hub::Provenance::kCache || source.how == hub::Provenance::kDownload;
  const std::string name = is_hub || source.how == hub::Provenance::kBuiltIn ? source.id
                           : spec.second_file.empty()
                               ? own_name(source.folder)
                               : str(own_name(source.folder), " + ", own_name(spec.second_file));
  return {spec, std::move(folder), name, std::string(hub::to_string(source.how)), source.revision, is_hub};
}

}  // namespace

fs::path program_file() {
  std::error_code error;
  return fs::read_symlink("/proc/self/exe", error);
}

fs::path share_folder(const Environment& environment, const fs::path& program) {
  if (std::string share = value_of(environment, "ATELIER_SHARE"); !share.empty()) return share;
  std::error_code ignored;
  for (fs::path folder = program.parent_path(); !folder.empty(); folder = folder.parent_path()) {
    for (const auto& share : {folder, folder / "share" / "atelier"}) {
      if (fs::exists(share / "models" / "mini" / "model_index.json", ignored)) return share;
    }
    if (folder == folder.parent_path()) break;
  }
  return program.parent_path();
}

FoundModel find_model(const Resolved& resolved, const Environment& environment,
                      const std::function<void(const std::string&)>& tell, const std::stop_token& stop,
                      const std::string& parts) {
  const auto& m = resolved.settings.model;
  const bool is_dummy = !m.dummy.empty() || m.model_name.starts_with(kDummyPrefix);
  if (!is_dummy && (m.dummy_seed || !m.save_dummy.empty())) {
    throw Error(Kind::kUsage, str(resolved.origin(m.dummy_seed ? "dummy_seed" : "save_dummy").text,
                                  " is for random weights: add --dummy NAME, such as ",
                                  models::preset_names().front(), "; doctor lists the names"));
  }
  if (!is_dummy && m.model_name.empty()) {
    throw Error(Kind::kUsage,
                str("no model is named: give --model_name mini, a folder, or a published model such as ",
                    models::preset_names().front()));
  }
  const std::string preset =
      m.dummy.empty() ? m.model_name.substr(std::min(m.model_name.size(), kDummyPrefix.size())) : m.dummy;
  auto found =
      is_dummy ? open_dummy(m, preset, parts)
               : open_source(m, source_of(m, environment, tell, stop), source_options(m, environment), parts);
  if (!m.model_type.empty() && found.folder.family().name != m.model_type) {
    throw Error(Kind::kUsage, str(resolved.origin("model_type").text, " ", m.model_type, ": the files of ",
                                  found.name, " are of the family ", found.folder.family().name));
  }
  return found;
}

}  // namespace atelier::app
