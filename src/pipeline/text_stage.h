// The first stage of a request, on the rank that leads a replica: texts to conditioning.
#pragma once
#include <c10/core/Device.h>

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "models/family.h"
#include "models/text_encoder.h"
#include "nn/single_rank.h"
#include "pipeline/activation_recorder.h"
#include "pipeline/adapted_part.h"
#include "pipeline/adapters.h"
#include "pipeline/model_repo.h"
#include "pipeline/recorded_encoder.h"
#include "pipeline/residency.h"
#include "text/tokenizer.h"

namespace atelier::pipeline {

// What encoders gave for texts of earlier requests, under a budget of bytes: the least recently used goes
// first.
class TextCache {
 public:
  struct Key {
    std::string encoder;
    models::TextCall::Padding padding;
    int layer;
    std::vector<int64_t> ids;
    auto operator<=>(const Key&) const = default;
  };
  explicit TextCache(int64_t budget) : budget_(budget) {}
  // Null if there is none; valid until the next put.
  const models::TextStates* find(const Key& key);
  void put(const Key& key, const models::TextStates& states);
  int64_t bytes() const { return bytes_; }

 private:
  using CachedText = std::pair<Key, models::TextStates>;
  int64_t budget_, bytes_ = 0;
  std::list<CachedText> entries_;  // the most recently used first
  std::map<Key, std::list<CachedText>::iterator> places_;
};

// What an encoder left out of the text of one request of a batch, in a sentence that quotes it.
using TextNote = std::function<void(size_t request, const std::string& note)>;

// The text encoders and their tokenizers. Every text is encoded by itself, so that its states depend neither
// on the texts beside it nor on those before it.
class TextStage : public models::Encoders {
 public:
  // Loads all encoders of the model. sharers: ranks among which the weights of encoders with blocks are cut
  // (T5's); all of them then do with this object what one does. Throws Error(kCheckpoint).
  TextStage(const ModelRepo& model, c10::Device device, at::ScalarType type,
            Residency residency = Residency::kResident, GraphMode graphs = GraphMode::kOff,
            ChangesOf changes = {}, comm::Comm* sharers = nullptr);

  // While one lives, the encoder that ran last stays where it runs, so that texts one behind another, of both
  // branches too, move its weights once. There is room for one encoder: the next one takes its place.
  class Stay {
   public:
    explicit Stay(TextStage& stage) : stage_(stage) { ++stage_.stays_; }
    ~Stay() {
      if (--stage_.stays_ == 0) stage_.release();
    }
    Stay(const Stay&) = delete;
    Stay& operator=(const Stay&) = delete;

   private:
    TextStage& stage_;
  };

  // One branch of a batch, of the family of the model. Reports tokens and states as `prefix`... if there are
  // probes.
  nn::Conditioning condition(const models::PromptBatch& prompts, ActivationRecorder* probes,
                             const std::string& prefix, TextNote on_note = {});
  // Throws Error(kUsage) for a text that the encoder cannot take, Error(kItem) when its states hold no
  // numbers.
  models::TextStates encode(const models::TextCall& call, std::span<const std::string> texts) override;
  bool has(std::string_view encoder) const override { return encoders_.contains(encoder); }
  // From now on the encoders have these adapters and no others; bytes read for it. Throws Error(kCheckpoint).
  int64_t adapt(const ChangesOf& changes);
  // Encoders whose weights are cut over ranks.
  std::vector<std::string> shared() const;
  int64_t encoded() const { return encoded_; }  // texts that were not in the cache
  int64_t moved() const { return moved_; }      // how often an encoder had to be brought to where it runs

 private:
  struct Loaded {
    std::unique_ptr<AdaptedPart> weights;
    std::unique_ptr<nn::BlockMemory> memory;
    std::unique_ptr<RecordedEncoder> encoder;
    std::unique_ptr<text::Tokenizer> tokenizer;  // null: texts become ids by hashing
    int64_t vocabulary = 1;
    std::vector<int> blocks;  // of the memory
    bool is_shared = false;
  };
  text::Encoding tokens(const Loaded& loaded, const std::string& text, int64_t length) const;
  void tell_cut(const Loaded& loaded, const models::TextCall& call, const std::string& text,
                size_t request) const;
  void place(const Loaded& loaded);
  void release();
  models::TextStates encode_one(const Loaded& loaded, const models::TextCall& call,
                                const text::Encoding& tokens);
  // As the reference's recordings name them; ids [B, T].
  void report(const models::TextCall& call, std::span<const std::string> texts, const at::Tensor& ids,
              const models::TextStates& states);

  const models::Family& family_;
  nn::SingleRank whole_;
  std::map<std::string, Loaded, std::less<>> encoders_;
  TextCache cache_;
  ActivationRecorder* probes_ = nullptr;  // of the running condition()
  std::string prefix_;
  TextNote on_note_;
  int64_t encoded_ = 0, moved_ = 0;
  int stays_ = 0;
  nn::BlockMemory* placed_ = nullptr;  // of the encoder that is where it runs
};

}  // namespace atelier::pipeline
