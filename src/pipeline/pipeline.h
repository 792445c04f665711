// A loaded model on one rank: texts and seeds in, images out. The same for every family.
#pragma once
#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "media/image.h"
#include "nn/builder.h"
#include "nn/ordered.h"
#include "parallel/parallel_context.h"
#include "pipeline/adapted_part.h"
#include "pipeline/adapters.h"
#include "pipeline/denoise.h"
#include "pipeline/denoiser_call.h"
#include "pipeline/executor.h"
#include "pipeline/image_stage.h"
#include "pipeline/leader.h"
#include "pipeline/model_repo.h"
#include "pipeline/preview.h"
#include "pipeline/shown_inputs.h"
#include "pipeline/text_stage.h"
#include "pipeline/vision_stage.h"
#include "request/request.h"
#include "sampling/noise.h"

namespace atelier::pipeline {

struct LoadOptions {
  c10::Device device = c10::kCPU;
  at::ScalarType denoiser = at::kFloat, encoders = at::kFloat, vae = at::kFloat;
  nn::Tier tier = nn::Tier::kExact;  // of the denoiser
  bool vae_slicing = false, vae_tiling = false;
  bool shard_t5_encoder = false;  // over the ranks of a replica
  GraphMode graphs = GraphMode::kOff;
  nn::SdpaBackend attention = nn::SdpaBackend::kAuto;
  nn::AttentionDtype attention_dtype = nn::AttentionDtype::kAuto;  // of the denoiser
  bool joins_branches = false;                                     // of guidance, see ExecutorOptions
  int64_t tokens_at_once = 0;                  // of hidden states of the denoiser's MLPs; 0: all
  Residency residency = Residency::kResident;  // kParked: no graphs, which hold addresses
  std::vector<request::AdapterRef> adapters;  // merged while the model loads; later each request says its own
};

// What generating reports while it runs.
struct Timing {
  std::map<std::string, double> seconds;  // by phase: load, encode, denoise, decode
  // Of the last request's steps, by the device's clock.
  std::vector<double> step_ms;
  // Of this rank's weights, read for the last request because its adapters were not those of the one before.
  int64_t reread_bytes = 0;
  StepCacheCounts cache;  // of the last request, on every rank of the replica
};

class Pipeline {
 public:
  // Reads the weights of this rank's part. Throws Error(kCheckpoint, kCapacity).
  Pipeline(const ModelRepo& model, parallel::ParallelContext& parallel_context,
           std::span<const plan::ModelChunk> route, const LoadOptions& options);
  ~Pipeline();

  // All ranks of a replica call it with the same batch and noise. Artifacts on the replica's rank 0, nothing
  // elsewhere. Throws RequestError for a batch that cannot be: on every rank, or, where an image holds NaN,
  // on rank 0 after all ranks have done their part.
  std::vector<media::Artifact> generate(request::Requests batch, const StepCallbacks& callbacks,
                                        const GivenNoise& noise = {});
  // One evaluation of the denoiser for a caller that samples: all ranks of a replica call it with the
  // same. Predictions of every sample, like the latents, float: on rank 0, and perhaps elsewhere. Throws
  // as generate() does.
  at::Tensor predict(const DenoiserCall& call, const StepCallbacks& callbacks);
  // latents as the autoencoder has them (not scaled to the denoiser's) -> [B, 3, (frames,) H, W] in [0, 1],
  // float: on rank 0, and perhaps elsewhere. All ranks of a replica call it.
  at::Tensor decode(const at::Tensor& latents, const StepCallbacks& callbacks);
  const Timing& timing() const { return timing_; }
  std::set<std::string> used() const;  // kernels and modes that really ran
  int64_t samples() const { return executor_ ? executor_->samples() : 0; }
  int64_t weight_bytes() const { return weight_bytes_; }
  c10::Device device() const { return options_.device; }

 private:
  struct LoadedExpert {
    std::string name;  // of the component
    std::unique_ptr<AdaptedPart> weights;
    std::unique_ptr<nn::BlockMemory> memory;
    std::unique_ptr<nn::Model> model;
    nn::LinearCounts linears, attentions;  // in its blocks
    std::shared_ptr<nn::TokenChunks> chunks;
  };
  LoadedExpert load_expert(std::string_view name, std::span<const Range> blocks, weights::Changes changes);
  void load_denoiser(std::span<const plan::ModelChunk> route, ChangesOf& changes);
  bool leads() const;                   // rank 0 of the replica: encodes, writes
  comm::Comm* encoder_sharers() const;  // null: the leader encodes alone
  void prepare(const request::Request& request, Denoise& work);
  void hand_over(const request::Request& request);
  void check_control(const request::Request& request, std::span<const request::AdapterRef> adapters);
  // What the generators of a batch have drawn before the first step.
  struct DrawnNoise {
    sampling::NoiseSource source;
    at::Tensor picture, initial;  // [B, ...]; picture: only of requests that begin with one
  };
  // Pictures to begin with, on every rank; undefined: none.
  struct EncodedPictures {
    at::Tensor moments;  // [B, 2C, h, w], float
    at::Tensor drawn;    // [B, h, w], bytes; undefined: the whole picture is drawn anew
    double strength = 1;
  };
  void adapt(const ChangesOf& changes);  // the denoisers
  void adapt(const std::vector<std::string>& adapters);
  at::Tensor evaluate(const DenoiserCall& call, const CheckedCall& checked, const SampleGroup& group,
                      int step, const StepCallbacks& callbacks);
  at::Tensor both_halves(const at::Tensor& mine, int64_t batch, int64_t first);
  std::future<DrawnNoise> plan(request::Requests batch, Denoise& work, ChangesOf& changes);
  std::future<DrawnNoise> condition(request::Requests batch, Denoise& work, const StepCallbacks& callbacks);
  Conditionings encode_texts(request::Requests batch, const Denoise& work, const StepCallbacks& callbacks,
                             const ChangesOf& changes, const std::exception_ptr& problem, ShownInputs& shown);
  void tell(request::Requests batch, const Denoise& work, const TextNote& on_note) const;
  EncodedPictures encode(request::Requests batch, const models::Grid& grid) const;
  at::Tensor seen(const ShownInputs& shown, ActivationRecorder* probes) const;
  void show(request::Requests batch, const ShownInputs& on_leader, Denoise& work,
            ActivationRecorder* probes) const;
  void begin_with(DrawnNoise drawn, const GivenNoise& given, const EncodedPictures& pictures, Denoise& work,
                  ActivationRecorder* probes) const;
  void begin_at(const EncodedPictures& pictures, const at::Tensor& clean, const at::Tensor& noise,
                Denoise& work) const;
  // Of latents [B, C, (f,) h, w]; the same on every rank of the replica.
  CodedBy coders(at::IntArrayRef latents) const;
  std::vector<media::Artifact> look_at(const at::Tensor& latents, bool is_small);
  at::Tensor denoise(const Denoise& work,
                     const StepCallbacks& callbacks);  // as Executor::denoise, timed, whole on return
  double lap(const char* phase);                       // seconds since the last lap, added to the phase
  std::optional<nn::OrderedArithmetic> arithmetic();   // of what this thread does, if it has one order

  const ModelRepo& model_;
  parallel::ParallelContext& parallel_context_;
  LoadOptions options_;
  Adapters adapters_;
  std::vector<LoadedExpert> experts_;
  std::optional<TextStage> texts_;              // on the leader, and on all who share its encoders
  std::optional<VisionStage> vision_;           // on the leader
  std::optional<ImageStage> images_;            // on the leader, and on every rank that may decode rows
  std::optional<LatentPreview> preview_;        // made where one is first asked for
  std::unique_ptr<Executor> executor_;          // null: the model has no denoiser
  std::unique_ptr<sampling::Sampler> sampler_;  // of the running request
  Timing timing_;
  std::set<std::string> unordered_;  // operators that OrderedArithmetic noted
  int64_t weight_bytes_ = 0;
  std::chrono::steady_clock::time_point lap_;
};

}  // namespace atelier::pipeline
