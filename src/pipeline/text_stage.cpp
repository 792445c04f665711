#include "pipeline/text_stage.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "base/error.h"
#include "models/blocked_encoder.h"
#include "parallel/shards.h"
#include "text/cleaning.h"

namespace atelier::pipeline {
namespace {

constexpr int64_t kCacheBytes = int64_t{64} << 20;

// Ids for models without a vocabulary: equal texts give equal ids.
std::vector<int64_t> hashed_ids(const std::string& text, int64_t length, int64_t vocabulary) {
  std::vector<int64_t> ids(static_cast<size_t>(length));
  uint64_t h = 1469598103934665603ull;
  for (size_t i = 0; i < ids.size(); ++i) {
    h = (h ^ (i < text.size() ? static_cast<unsigned char>(text[i]) : 0u)) * 1099511628211ull;
    ids[i] = static_cast<int64_t>((h >> 20) % static_cast<uint64_t>(vocabulary));
  }
  return ids;
}

int64_t bytes_of(const models::TextStates& s) {
  int64_t bytes = 0;
  for (const auto& t : {s.states, s.pooled, s.projected})
    bytes += t.defined() ? static_cast<int64_t>(t.nbytes()) : 0;
  return bytes;
}

at::Tensor row(const std::vector<int64_t>& numbers) {
  return at::tensor(numbers, at::TensorOptions(at::kLong)).unsqueeze(0);
}

// [1, ...] of each sample -> [B, ...]; undefined where one of them is.
at::Tensor joined(const std::vector<models::TextStates>& each, at::Tensor models::TextStates::*part) {
  std::vector<at::Tensor> all;
  for (const auto& one : each) all.push_back(one.*part);
  return all.front().defined() ? at::cat(all) : at::Tensor();
}

std::string cleaned(models::TextCall::Cleaning cleaning, const std::string& text) {
  switch (cleaning) {
    case models::TextCall::Cleaning::kLowerStripped:
      return text::lower_stripped(text);
    case models::TextCall::Cleaning::kUnescaped:
      return text::unescaped(text);
    default:
      return text;
  }
}

// On one line, shortened where it is long; well-formed UTF-8.
std::string quoted(std::string text) {
  constexpr size_t kMost = 400;  // bytes
  if (text.size() > kMost) {
    size_t end = kMost;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    text = text.substr(0, end) + "...";
  }
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

const models::TextStates* TextCache::find(const Key& key) {
  const auto found = places_.find(key);
  if (found == places_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, found->second);
  return &found->second->second;
}

void TextCache::put(const Key& key, const models::TextStates& states) {
  const int64_t bytes = bytes_of(states);
  if (bytes > budget_ || places_.contains(key)) return;
  while (bytes_ + bytes > budget_) {
    bytes_ -= bytes_of(entries_.back().second);
    places_.erase(entries_.back().first);
    entries_.pop_back();
  }
  entries_.emplace_front(key, states);
  places_[key] = entries_.begin();
  bytes_ += bytes;
}

TextStage::TextStage(const ModelRepo& model, c10::Device device, at::ScalarType type, Residency residency,
                     GraphMode graphs, ChangesOf changes, comm::Comm* sharers)
    : family_(model.family()), cache_(kCacheBytes) {
  // A graph holds the weights' addresses: they must stay.
  const bool may_record = graphs == GraphMode::kOn && device.is_cuda() && residency == Residency::kResident;
  for (const auto& spec : model.encoders()) {
    const auto& component = model.component(spec.folder);
    auto& loaded = encoders_[component.name];
    loaded.weights =
        std::make_unique<AdaptedPart>(model.weights(component), std::move(changes[component.name]));
    const auto build = [&](nn::BlockMemory& memory, c10::Device where) {
      const nn::Builder b(loaded.weights->store(), whole_.seams, memory,
                          at::TensorOptions(type).device(where));
      auto encoder = models::find_encoder(*component.config).build(*component.config, b);
      loaded.weights->hold(b.manifest());
      return encoder;
    };
    nn::BlockSizes sizes;
    if (sharers) build(sizes, at::kMeta);
    loaded.is_shared = !sizes.bytes().empty();
    if (loaded.is_shared)
      loaded.memory = std::make_unique<parallel::Sharded>(*sharers, sizes.bytes(), device);
    if (!loaded.is_shared) loaded.memory = component_memory(residency);
    auto encoder = build(*loaded.memory, device);
    loaded.weights->store().check();
    loaded.memory->release();
    if (loaded.is_shared) {
      for (const auto& [block, _] : sizes.bytes()) loaded.blocks.push_back(block);
      dynamic_cast<models::BlockedEncoder&>(*encoder).on_block(
          [&memory = *loaded.memory](int block) { memory.before(block); });
    }
    loaded.encoder = std::make_unique<RecordedEncoder>(
        std::move(encoder), device, may_record && !loaded.is_shared ? cuda_graphs() : nullptr);
    loaded.vocabulary = model.vocabulary(spec.folder);
    if (model.has_vocabulary()) loaded.tokenizer = model.tokenizer(spec);
  }
}

std::vector<std::string> TextStage::shared() const {
  std::vector<std::string> names;
  for (const auto& [name, loaded] : encoders_) {
    if (loaded.is_shared) names.push_back(name);
  }
  return names;
}

int64_t TextStage::adapt(const ChangesOf& changes) {
  nn::Reread all;
  for (auto& [name, loaded] : encoders_) {
    const auto done = loaded.weights->adapt(changes_of(changes, name), *loaded.memory);
    all.tensors += done.tensors;
    all.bytes += done.bytes;
  }
  if (all.tensors > 0) cache_ = TextCache(kCacheBytes);
  return all.bytes;
}

nn::Conditioning TextStage::condition(const models::PromptBatch& prompts, ActivationRecorder* probes,
                                      const std::string& prefix, TextNote on_note) {
  probes_ = probes;
  prefix_ = prefix;
  on_note_ = std::move(on_note);
  return family_.condition(*this, prompts);
}

text::Encoding TextStage::tokens(const Loaded& loaded, const std::string& text, int64_t length) const {
  if (loaded.tokenizer) {
    auto made = loaded.tokenizer->encode(text, length);
    const auto most = std::max_element(made.ids.begin(), made.ids.end());
    if (most != made.ids.end() && *most >= loaded.vocabulary) {
      throw Error(Kind::kCheckpoint,
                  str("a tokenizer gives piece ", *most, " where its text encoder has ", loaded.vocabulary,
                      ": they are of different models; download both from one"));
    }
    return made;
  }
  std::vector<int64_t> mask(static_cast<size_t>(length), 0);
  std::fill_n(mask.begin(), std::min(mask.size(), text.size() + 1), 1);
  return {hashed_ids(text, length, loaded.vocabulary), mask, false};
}

void TextStage::tell_cut(const Loaded& loaded, const models::TextCall& call, const std::string& text,
                         size_t request) const {
  if (!on_note_ || !loaded.tokenizer) return;
  const auto rest = text::left_out(*loaded.tokenizer, text, call.length);
  if (rest.empty()) return;
  on_note_(request, str(prefix_ == "negative." ? "the negative prompt" : "the prompt", " is cut to ",
                        call.length, " tokens for ", call.encoder, ", which leaves out ", quoted(rest)));
}

void TextStage::place(const Loaded& loaded) {
  if (placed_ == loaded.memory.get()) return;
  release();
  placed_ = loaded.memory.get();
  placed_->will_run({});
  ++moved_;
}

void TextStage::release() {
  if (auto* const left = std::exchange(placed_, nullptr)) left->release();
}

models::TextStates TextStage::encode_one(const Loaded& loaded, const models::TextCall& call,
                                         const text::Encoding& tokens) {
  ++encoded_;
  const bool is_masked = call.padding == models::TextCall::Padding::kMasked;
  place(loaded);
  if (loaded.is_shared) loaded.memory->will_run(loaded.blocks);
  auto [one, is_finite] =
      loaded.encoder->encode(row(tokens.ids), is_masked ? row(tokens.mask) : at::Tensor(), call.layer);
  if (!is_finite) {
    throw Error(Kind::kItem,
                str(call.encoder, " made numbers out of range of a prompt; try another type for it"));
  }
  one.lengths = {std::accumulate(tokens.mask.begin(), tokens.mask.end(), int64_t{0})};
  return one;
}

models::TextStates TextStage::encode(const models::TextCall& call, std::span<const std::string> texts) {
  const auto& loaded = encoders_.find(call.encoder)->second;
  const Stay all_texts(*this);
  std::vector<models::TextStates> each;
  std::vector<at::Tensor> ids, masks;
  models::TextStates all;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto text = cleaned(call.cleaning, texts[i]);
    const auto t = tokens(loaded, text, call.length);
    if (t.is_cut) tell_cut(loaded, call, text, i);
    const TextCache::Key key{std::string(call.encoder), call.padding, call.layer, t.ids};
    const auto* known = cache_.find(key);
    if (known) {
      each.push_back(*known);
    } else {
      each.push_back(encode_one(loaded, call, t));
      cache_.put(key, each.back());
    }
    ids.push_back(row(t.ids));
    masks.push_back(row(t.mask));
    all.lengths.push_back(each.back().lengths.front());
  }
  all.states = joined(each, &models::TextStates::states);
  all.pooled = joined(each, &models::TextStates::pooled);
  all.projected = joined(each, &models::TextStates::projected);
  all.mask = at::cat(masks);
  if (probes_) report(call, texts, at::cat(ids), all);
  return all;
}

void TextStage::report(const models::TextCall& call, std::span<const std::string> texts,
                       const at::Tensor& ids, const models::TextStates& states) {
  const auto whole = [&](const std::string& name, const at::Tensor& value) {
    if (value.defined()) probes_->whole(str(prefix_, name, ".", call.encoder), value);
  };
  whole("input_ids", ids);
  if (call.padding == models::TextCall::Padding::kMasked) whole("mask", states.mask);
  whole("pooler_output", states.pooled);
  whole("text_embeds", states.projected);
  if (call.layer == 0) return whole("last_hidden_state", states.states);
  whole(str("hidden_states_m", -call.layer), states.states);
  // Recordings hold these whichever layer was used.
  for (const int layer : {0, -2}) {
    auto other = call;
    other.layer = layer;
    if (layer != call.layer) encode(other, texts);
  }
}

}  // namespace atelier::pipeline
