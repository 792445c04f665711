// Prompt files: .jsonl, .json, .txt and .csv become rows; a bad row is reported and the others go on.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>

#include "request/item.h"

namespace atelier::request {

// Fields that a row may hold: prompt (needed), negative_prompt, height, width, seed, num_inference_steps,
// guidance_scale, num_images_per_prompt, index, output_path. Numbers may be written as text; null and, in
// CSV, an empty cell mean unset. Without index: .jsonl and .txt the line, .json the place in the array, .csv
// the data row, from 0. output_name_column: the field to name files by instead of output_path; empty for
// none. Throws Error(kUsage) if the file cannot be read, is of another kind, or has no valid row at all.
Prompts read_prompts(const std::filesystem::path& file, const std::string& output_name_column = {});

// The same for bytes that stand for a file of this name.
Prompts parse_prompts(std::string_view bytes, const std::filesystem::path& file,
                      const std::string& output_name_column = {});

// The prompt of the command line: one row with index 0.
Prompts one_prompt(const std::string& prompt);

}  // namespace atelier::request
