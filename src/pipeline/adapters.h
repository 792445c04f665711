// Which layers of a model an adapter's names mean.
#pragma once
#include <filesystem>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pipeline/model_repo.h"
#include "request/adapters.h"
#include "weights/adapted_store.h"
#include "weights/layer_names.h"

namespace atelier::pipeline {

// By the components' names; those that are not there stay as they are.
using ChangesOf = std::map<std::string, weights::Changes, std::less<>>;
// A copy: what is done with it may fail, and be tried again.
weights::Changes changes_of(const ChangesOf& all, std::string_view component);

// Knows the denoisers and text encoders of one model, by the names that their families declare.
class Adapters {
 public:
  explicit Adapters(const ModelRepo& model) : model_(model) {}

  // What these adapters change, in their order. Files are remembered until they change. Throws
  // Error(kUsage) for a path where nothing is, Error(kCheckpoint) for what is no adapter of this model:
  // every layer must belong somewhere; and for an expert that the model does not have, or that is not the one
  // which the file names.
  ChangesOf bind(std::span<const request::AdapterRef> adapters);
  // The denoisers of which neither the file nor who asked for it says anything: it may be meant for them.
  std::vector<std::string> unmentioned(const request::AdapterRef& adapter);
  // The first of them that makes a layer of the model take more inputs, as a control LoRA does; empty: none.
  std::string widening(std::span<const request::AdapterRef> adapters);

 private:
  using Prefixes =
      std::map<std::string, char, std::less<>>;  // of layers, and what separates the words behind
  struct Part {
    std::string name;  // of the component
    bool is_encoder = false;
    Prefixes prefixes;
    weights::LayerNames names;
    std::set<std::string, std::less<>> tensors;  // canonical
  };
  struct BoundLayer {
    const weights::AdapterLayer* layer = nullptr;
    const Part* part = nullptr;
    const weights::LayerPieces* pieces = nullptr;
  };
  struct BoundFile {
    std::filesystem::path path;
    std::string expert;  // that was asked for
    std::filesystem::file_time_type time;
    std::uintmax_t bytes = 0;
    std::shared_ptr<const weights::AdapterFile> file;
    std::vector<BoundLayer> layers;
    std::list<weights::LayerPieces> widened;  // of layers that take more inputs than the model's
  };

  const std::vector<Part>& parts();
  const BoundFile& open(const request::AdapterRef& adapter);
  // `name` is the layer's, or what of it stands behind a prefix that nobody knows.
  std::optional<BoundLayer> place_of(const weights::AdapterLayer& layer, std::string_view name,
                                     std::string_view expert);
  size_t strange_prefix(const weights::AdapterFile& file, std::string_view expert);
  void check_expert(const weights::AdapterFile& file, std::string_view expert) const;
  void bind(BoundFile& file);
  static bool widen(BoundLayer& layer, std::list<weights::LayerPieces>& kept);
  [[noreturn]] void refuse_names(const weights::AdapterFile& file, const std::vector<std::string>& unbound);

  const ModelRepo& model_;
  std::vector<Part> parts_;  // once asked for
  std::list<BoundFile> files_;
};

}  // namespace atelier::pipeline
