// Settings of videos: flags of atelier video, the dictionary of the video nodes as a file.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "app/cli/cli.h"
#include "app/cli/flags.h"
#include "app/run/layout_choice.h"
#include "app/settings/resolve.h"
#include "base/error.h"
#include "base/scratch.h"

namespace atelier::app {
namespace {

Resolved resolved(const Arguments& arguments, Surface surface = kVideo) {
  const Parsed parsed = parse_flags({surface, "test", "", {}}, one_spelling(arguments));
  return resolve(surface, parsed.flags, {}, parsed.config);
}

TEST(VideoFlags, AreFieldsOfEveryRequest) {
  const auto r =
      resolved({"--num-frames", "17", "--flow_shift", "5", "--guidance_scale_2=3.5", "--input-images",
                "a.png", "b.png", "--reference", "c.png", "d.png", "--mask_video", "m.gif", "--control_video",
                "v.mp4", "--fps", "24", "--conditioning_scale", "1,0.5"});
  const auto& request = r.settings.input.row.request;
  EXPECT_EQ(request.num_frames, 17);
  EXPECT_EQ(request.scheduler_shift, 5);
  EXPECT_EQ(request.guidance_scale_2, 3.5);
  EXPECT_EQ(request.input_images, (std::vector<std::string>{"a.png", "b.png"}));
  EXPECT_EQ(request.reference_images, (std::vector<std::string>{"c.png", "d.png"}));
  EXPECT_EQ(request.fps, 24);
  const auto& input = r.settings.input;
  EXPECT_EQ(input.texts_of("mask_video"), std::vector<std::string>{"m.gif"});
  EXPECT_EQ(input.texts_of("control_video"), std::vector<std::string>{"v.mp4"});
  EXPECT_EQ(input.texts_of("conditioning_scale"), std::vector<std::string>{"1,0.5"});
  EXPECT_EQ(r.settings.output.output_format, "webp");
  EXPECT_TRUE(r.settings.output.resume);
}

TEST(VideoFlags, OutOfRangeAreRefused) {
  for (const Arguments& wrong : {Arguments{"--num_frames", "0"},
                                 {"--fps", "0"},
                                 {"--flow_shift", "0"},
                                 {"--output_format", "mov"},
                                 {"--gpu_memory_fraction", "0"},
                                 {"--gpu_memory_fraction", "1.5"}})
    EXPECT_NE(message_of(Kind::kUsage, [&] { resolved(wrong); }).find(wrong[0]), std::string::npos)
        << wrong[0];
}

// The values that its documentation shows, and the others that its node has.
TEST(VideoNodes, DictionaryIsTakenAsItStands) {
  const Scratch scratch;
  const auto shown = scratch.write("shown.json", R"({
    "num_gpus": 4,
    "gpu_memory_fraction": 0.8,
    "pipeline_parallel_size": 2,
    "tensor_parallel_size": 2,
    "use_fp16": true,
    "enable_activation_checkpointing": true
})");
  const auto whole = scratch.write("whole.json", R"({
    "num_gpus": 2, "gpu_memory_fraction": 0.9, "pipeline_parallel_size": 1, "tensor_parallel_size": 1,
    "data_parallel_size": 2, "use_fp16": false, "use_bf16": true, "enable_activation_checkpointing": true,
    "enable_gradient_checkpointing": false, "max_batch_size": 2, "max_sequence_length": 2048,
    "overlap_p2p_comm": true, "use_flash_attention": true, "use_sdpa": true
})");
  const auto r = resolved({"--config", shown.string()});
  EXPECT_EQ(r.settings.device.num_gpus, "4");
  EXPECT_EQ(r.settings.device.gpu_memory_fraction, 0.8);
  EXPECT_EQ(degrees_of(r), (plan::ParallelConfig{.pipeline = 2, .tensor = 2, .sync = true}));
  EXPECT_EQ(r.settings.device.torch_dtype, "float16");
  EXPECT_TRUE(r.settings.engine.enable_activation_checkpointing);
  const auto w = resolved({"--config", whole.string()});
  EXPECT_EQ(w.settings.input.batch_size, 2);
  EXPECT_EQ(w.settings.backend.data_parallel_degree, 2);
  EXPECT_EQ(w.settings.engine.attention_backend, "");
  EXPECT_TRUE(w.settings.backend.overlap_p2p_comm);
  EXPECT_FALSE(w.settings.input.row.request.max_sequence_length);
  EXPECT_FALSE(w.notes.empty());
}

// Layers split across GPUs, as its documentation has it: exact on every surface; xDiT's flag has patches.
TEST(VideoNodes, StagesAreExact) {
  const Scratch scratch;
  const auto file = scratch.write("node.json", R"({"pipeline_parallel_size": 2})").string();
  const plan::ParallelConfig exact{.pipeline = 2, .sync = true}, patches{.pipeline = 2};
  for (const Surface surface : {kT2i, kRun, kVideo}) {
    const auto of = [&](const Arguments& arguments) { return degrees_of(resolved(arguments, surface)); };
    EXPECT_EQ(of({"--pipeline_parallel_size", "2"}), exact);
    EXPECT_EQ(of({"--config", file}), exact);
    EXPECT_EQ(of({"--strategy", "pipeline_parallel_size=2"}), exact);
    EXPECT_EQ(of({"--pipefusion_parallel_degree", "2"}), patches);
    EXPECT_EQ(of({"--config", file, "--pipefusion_degree", "2"}), patches) << "the flag wins";
    EXPECT_EQ(of({"--config", file, "--pipeline_parallel_size", "1"}), plan::ParallelConfig());
    EXPECT_EQ(of({"--pipeline_parallel_size", "1", "--pipefusion_degree", "2"}), patches);
    EXPECT_EQ(of({"--pipeline_parallel_size", "2", "--pipefusion_degree", "2", "--pipefusion_sync"}), exact);
    EXPECT_EQ(of({"--pipeline_parallel_size", "2", "--strategy", "tensor=2"}),
              (plan::ParallelConfig{.pipeline = 2, .tensor = 2, .sync = true}));
    const auto refused = [&](const Arguments& arguments) {
      return message_of(Kind::kUsage, [&] { resolved(arguments, surface); });
    };
    const auto both = refused({"--pipeline_parallel_size", "2", "--pipefusion_degree", "2"});
    EXPECT_NE(both.find("--pipeline_parallel_size 2 means exact stages"), std::string::npos) << both;
    const auto denied = refused({"--pipeline_parallel_size", "2", "--no_pipefusion_sync"});
    EXPECT_NE(denied.find("--no_pipefusion_sync says otherwise"), std::string::npos) << denied;
  }
}

TEST(VideoNodes, MessagesTravelBesideTheWorkUnlessThatIsSwitchedOff) {
  const Scratch scratch;
  const auto file = scratch.write("off.json", R"({"ulysses_degree": 2, "overlap_p2p_comm": false})").string();
  const auto overlaps = [](const Arguments& arguments) {
    const auto r = resolved(arguments, kRun);
    EXPECT_EQ(degrees_of(r).overlap, r.settings.backend.overlap_p2p_comm);
    return degrees_of(r).overlap;
  };
  EXPECT_TRUE(overlaps({"--ring_degree", "2"}));
  EXPECT_FALSE(overlaps({"--config", file}));
  EXPECT_TRUE(overlaps({"--config", file, "--overlap_p2p_comm", "true"}));
  EXPECT_FALSE(overlaps({"--overlap_p2p_comm", "false", "--ring_degree", "2"}));
  EXPECT_FALSE(overlaps({"--overlap_p2p_comm=false"}));
  EXPECT_FALSE(overlaps({"--no_overlap_p2p_comm"}));
  EXPECT_FALSE(overlaps({"--strategy", "ring=2", "--overlap-p2p-comm", "false"}));
  EXPECT_FALSE(degrees_of(resolved({"--strategy", "ring=2, overlap_p2p_comm=false"}, kRun)).overlap);
}

TEST(VideoNodes, SwitchesOfKernelsChooseAmongThem) {
  const Scratch scratch;
  for (const auto& [text, kernel] : {std::pair{R"({"use_sdpa": false})", "flash"},
                                     {R"({"use_flash_attention": false})", "efficient"},
                                     {R"({"use_flash_attention": false, "use_sdpa": false})", "math"}})
    EXPECT_EQ(
        resolved({"--config", scratch.write("c.json", text).string()}).settings.engine.attention_backend,
        kernel);
}

}  // namespace
}  // namespace atelier::app
