// A part of a model that has weights, and what its family says about them.
#pragma once
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "models/family.h"
#include "weights/store.h"

namespace atelier::pipeline {

struct Component {
  enum class ComponentKind { kDenoiser, kVae, kEncoder, kImageEncoder } kind;
  std::string name;                    // its sub-folder
  std::shared_ptr<const Json> config;  // config.json
  std::filesystem::path file;          // of its weights; empty: those in the sub-folder
  weights::Section section;            // where they are in the file
};

// What `read` makes of a component's configuration. A message about the file names this component: models
// know only the kind of theirs, of which there can be several.
Error about_config(const Component& c, const Error& error);
template <class Read>
auto of_config(const Component& c, const Read& read) {
  try {
    return read();
  } catch (const Error& e) {
    throw about_config(c, e);
  }
}

// Builds a component whole on no device: only shapes pass through.
void build_shapes(const models::Family& family, const Component& c, const weights::WeightStore& store);
// Every tensor that the component needs, by its canonical name.
std::vector<weights::ManifestEntry> tensors_of(const models::Family& family, const Component& c);
std::vector<weights::NameRule> names_of(const models::Family& family, const Component& c);
// Globs of tensors that may be in its files and nobody reads.
std::span<const std::string_view> ignorable_of(const models::Family& family, const Component& c);

// Numbers in all tensors that were asked of a store.
int64_t numbers_in(const weights::WeightStore& store);
// [library, class] as its configuration names them and model_index.json has them.
Json class_of(const Component& c);

}  // namespace atelier::pipeline
