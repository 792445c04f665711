// What a server remembers of the adapters that its requests name.
#include "app/run/adapters.h"

#include <gtest/gtest.h>

#include <fstream>

#include "app/cli/cli.h"
#include "app/cli/flags.h"
#include "app/run/find_model.h"
#include "app/run/requests.h"
#include "weights/adapter_for_test.h"

namespace atelier::app {
namespace {

namespace fs = std::filesystem;

Resolved mini() {
  const Arguments arguments{"--model_name", "mini", "--device", "cpu", "--prompt", "a fox"};
  return resolve(kT2i, parse_flags({kT2i, "test", "", {}}, one_spelling(arguments)).flags, {}, {});
}

// The last number of a file is another one; its size and its place stay.
void change(const fs::path& file) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekp(-4, std::ios::end);
  const float number = 0.125;
  stream.write(reinterpret_cast<const char*>(&number), sizeof number);
}

TEST(AdapterChoice, ReadsAFileAgainOnlyWhenItHasChanged) {
  const auto resolved = mini();
  const auto model = find_model(resolved, {}, [](const std::string&) {}, {});
  const weights::AdapterFolder folder;
  const auto file = folder.write(
      {{"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", weights::numbers({2, 192}, 1)},
       {"transformer.single_transformer_blocks.0.attn.to_q.lora_B.weight", weights::numbers({192, 2}, 2)}});
  AdapterChoice choice(model.folder, 1);
  // as a server does it for every request
  const auto digest = [&] {
    request::PromptRow row;
    row.request.prompt = "a fox";
    row.request.lora = {file.string()};
    request::Prompts prompts;
    prompts.rows.push_back(row);
    const auto set = make_requests(resolved, model.folder, std::move(prompts), ".png", {.adapters = &choice});
    return set.requests.front().lora_digest.value().front();
  };
  const auto first = digest();
  const auto time = fs::last_write_time(file);
  change(file);
  fs::last_write_time(file, time);
  EXPECT_EQ(digest(), first);  // nothing says that it has changed, so nobody reads it
  fs::last_write_time(file, time + std::chrono::seconds(1));
  EXPECT_NE(digest(), first);
  EXPECT_EQ(choice.lines().size(), 1u);
}

TEST(AdapterChoice, TellsOfTheExpertsThatItWasNotAskedToChange) {
  const auto model = pipeline::ModelRepo::open("tests/goldens/wan_experts/model");
  const weights::AdapterFolder folder;
  const auto file = folder.write({{"blocks.0.attn1.to_q.lora_A.weight", weights::numbers({2, 18}, 1)},
                                  {"blocks.0.attn1.to_q.lora_B.weight", weights::numbers({18, 2}, 2)}});
  AdapterChoice choice(model, 0.5);
  request::Request asked;
  asked.lora = {file.string(), file.string() + "@transformer_2"};
  choice.settle(asked);
  EXPECT_EQ(asked.lora->back(), file.string() + ":0.5@transformer_2");
  EXPECT_EQ(asked.lora_digest->front(), asked.lora_digest->back());
  const auto lines = choice.lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_TRUE(
      lines[0].ends_with("1 tensors of transformer; one that is for transformer_2 is named as "
                         "PATH@transformer_2"))
      << lines[0];
  EXPECT_TRUE(lines[1].ends_with("1 tensors of transformer_2")) << lines[1];
}

}  // namespace
}  // namespace atelier::app
