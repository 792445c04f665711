#include "pipeline/known_inputs.h"

#include <utility>

#include "base/error.h"

namespace atelier::pipeline {

std::string text_length_problem(const request::Request& r, const ModelRepo& model) {
  const auto& family = model.family();
  if (!r.max_sequence_length) return {};
  const int64_t tokens = *r.max_sequence_length, usual = model.defaults().max_sequence_length;
  if (!family.has_text_length && tokens != usual)
    return str("max_sequence_length ", tokens, " was asked for; ", family.name, " always reads ", usual,
               " tokens: leave it unset");
  if (tokens <= family.most_text_tokens) return {};
  return str(tokens, " tokens were asked for; prompts of ", family.name, " have at most ",
             family.most_text_tokens);
}

std::string clip_skip_problem(const request::Request& r, const models::Family& family) {
  if (r.clip_skip.value_or(0) == 0 || family.has_clip_skip) return {};
  return str("clip_skip ", *r.clip_skip, " was asked for; ", family.name,
             " reads the last layer of its text encoders alone");
}

namespace {

// of: whose inputs they are.
std::string sizes_problem(const request::Request& r, models::SizeInputs inputs, std::string_view of) {
  using models::SizeInputs;
  constexpr std::string_view kNegative = "negative_";
  const std::pair<std::string_view, bool> asked[] = {
      {"original_size", r.original_size.has_value()},
      {"target_size", r.target_size.has_value()},
      {"crops_coords_top_left", r.crops_coords_top_left.has_value()},
      {"negative_original_size", r.negative_original_size.has_value()},
      {"negative_target_size", r.negative_target_size.has_value()},
      {"negative_crops_coords_top_left", r.negative_crops_coords_top_left.has_value()}};
  for (const auto& [name, is_asked] : asked) {
    if (!is_asked || inputs == SizeInputs::kOfBothBranches) continue;
    if (inputs == SizeInputs::kNone)
      return str(name, " was asked for; ", of, " has no sizes of photographs among its inputs");
    if (name.starts_with(kNegative))
      return str(name, " was asked for; ", of, " takes one for both branches, as ",
                 name.substr(kNegative.size()));
  }
  return {};
}

}  // namespace

std::string size_inputs_problem(const request::Request& r, const models::Family& family) {
  return sizes_problem(r, family.size_inputs, family.name);
}

std::string size_conditions_problem(const request::Request& r, const ModelRepo& model) {
  const auto& family = model.family();
  const bool are_read = !family.reads_sizes || family.reads_sizes(model.denoiser());
  return are_read ? size_inputs_problem(r, family)
                  : sizes_problem(r, models::SizeInputs::kNone, model.label());
}

std::string texts_problem(const request::Request& r, const ModelRepo& model) {
  const auto& family = model.family();
  std::string problem = text_length_problem(r, model);
  if (problem.empty()) problem = clip_skip_problem(r, family);
  if (problem.empty()) problem = request::prompts_problem(r, family.prompts, family.name);
  return problem;
}

}  // namespace atelier::pipeline
