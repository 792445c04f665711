// A run as its files tell it: ledger, report, and what becomes of them when something breaks.
#include "app/run/draw.h"

#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "app/cli/cli.h"
#include "app/cli/flags.h"
#include "base/digest.h"
#include "base/files.h"
#include "base/scratch.h"
#include "jobs/ledger.h"
#include "media/image.h"
#include "report/run_report.h"

namespace atelier::app {
namespace {

// A run of the built-in model whose workers are played by `start`.
class Drawing {
 public:
  explicit Drawing(Arguments arguments) {
    for (const char* word : {"--model_name", "mini", "--device", "cpu", "--quiet", "--log_dir"})
      arguments.emplace_back(word);
    arguments.push_back((folder_ / "logs").string());
    arguments.push_back("--output_dir=" + folder_.path().string());
    resolved_ = resolve(kT2i, parse_flags({kT2i, "test", "", {}}, one_spelling(arguments)).flags, {}, {});
  }
  int draw(const StartRun& start) {
    auto prompts = read_prompts(resolved_);
    auto model = find_model(resolved_, {}, [](const std::string&) {}, {});
    const Interrupt interrupt;
    return app::draw(make_run_spec(resolved_, std::move(model), std::move(prompts), 0), resolved_, interrupt,
                     start);
  }
  Json report(const char* name = report::kReportName) const { return read_json(folder_ / name); }
  const Scratch& folder() const { return folder_; }
  jobs::Ledger ledger() const { return jobs::Ledger(folder_ / jobs::kLedgerName); }

 private:
  Scratch folder_;
  Resolved resolved_;
};

TEST(Draw, TheReportHoldsEveryBatchOfEveryGroup) {
  Drawing run({"--prompt", "a", "b", "c", "--seed", "5", "--num_inference_steps", "2"});
  const int code =
      run.draw([](const cluster::Job& job, const Batches& batches, const cluster::RunEvents& events, auto) {
        EXPECT_EQ(job.sink.record["model"], "mini");
        events.on_phase("load");
        events.on_phase("ready");
        int group = 0;
        for (const auto& batch : batches) {
          events.on_step({.group = group, .step = 1, .steps = 2});
          events.on_generated({.group = group, .times = {{{"denoise", 0.5}}, {100, 200}}});
          for (const auto& r : batch) events.on_stored({.request = r, .stored = {{"hash", 10, 0.1}, {}}});
          group = 1 - group;
        }
        return cluster::RunResult{};
      });
  EXPECT_EQ(code, 0);
  const Json report = run.report();
  EXPECT_EQ(report["settings"]["record"]["model"], "mini");
  EXPECT_EQ(report["ms_per_step"]["count"], 6);
  EXPECT_EQ(report["groups"][0]["batches"], 2);
  EXPECT_EQ(report["groups"][1]["seconds"]["denoise"], 0.5);
  double sum = 0;
  for (const auto& phase : report["phases"]) sum += phase["seconds"].get<double>();
  EXPECT_NEAR(sum, report["seconds"].get<double>(), 0.05);
  const auto record = run.ledger().find("000001.png");
  ASSERT_TRUE(record);
  EXPECT_EQ(record->sha256, "hash");
  EXPECT_EQ(record->settings["model"], "mini");
  EXPECT_EQ(record->settings["num_inference_steps"], 2);
}

TEST(Draw, ALedgerThatCannotBeWrittenEndsTheRunWithItsErrorAndAReport) {
  Drawing run({"--prompt", "a", "b", "--seed", "5"});
  ::signal(SIGXFSZ, SIG_IGN);
  const auto message = message_of(Kind::kUsage, [&] {
    run.draw([](const cluster::Job&, const Batches& batches, const cluster::RunEvents& events, auto) {
      rlimit before{}, none{};
      ::getrlimit(RLIMIT_FSIZE, &before);
      none.rlim_max = before.rlim_max;
      ::setrlimit(RLIMIT_FSIZE, &none);
      try {
        events.on_stored({.request = (*batches.begin()).at(0), .stored = {{"hash", 10, 0.1}, {}}});
      } catch (...) {
        ::setrlimit(RLIMIT_FSIZE, &before);
        throw;
      }
      return cluster::RunResult{};
    });
  });
  EXPECT_NE(message.find("cannot write the ledger"), std::string::npos) << message;
  const Json report = run.report();
  EXPECT_EQ(report["pictures"]["failed"], 1);  // the one that nobody has drawn
  EXPECT_NE(report["pictures"]["failures"][0]["reason"].get<std::string>().find("ledger"), std::string::npos);
}

// Workers that write one line into each file, and tell of all but the first `unheard` ones.
StartRun writing(const std::filesystem::path& folder, size_t unheard = 0) {
  return [=](const cluster::Job& job, const Batches& batches, const cluster::RunEvents& events, auto) {
    size_t n = 0;
    for (const auto& batch : batches) {
      for (const auto& r : batch) {
        const auto bytes = media::encode(media::Image{1, 1, {1, 2, 3}}, media::Format::kPng, 95,
                                         media::describe(request::look(r, job.sink.record)));
        write_file_atomically(folder / r.name, bytes);
        if (++n > unheard)
          events.on_stored({.request = r, .stored = {{sha256(bytes), bytes.size(), 0.1}, {}}});
      }
    }
    if (unheard > 0) throw Error(Kind::kInterrupted, "interrupted");
    return cluster::RunResult{};
  };
}

TEST(Draw, MetadataLedgerAndReportHoldTheSameRecord) {
  Drawing run({"--prompt", "a", "--seed", "5"});
  EXPECT_EQ(run.draw(writing(run.folder().path())), 0);
  const Json record = run.report()["settings"]["record"];
  for (const char* key : {"transformer_hash", "vae_hash", "text_encoder_hash", "tokenizer_hash",
                          "scheduler_hash", "version", "model", "dtype"})
    EXPECT_TRUE(record.contains(key)) << key;
  const Json in_ledger = run.ledger().find("000000.png")->settings;
  const auto metadata = media::read_metadata(read_file(run.folder() / "000000.png"));
  const std::map<std::string, std::string> in_file(metadata->values.begin(), metadata->values.end());
  for (const auto& [key, value] : record.items()) {
    EXPECT_EQ(in_ledger[key], value) << key;
    EXPECT_EQ(in_file.at(key), value.is_string() ? value.get<std::string>() : value.dump()) << key;
  }
}

TEST(Draw, StepsThatAreLaidOutAreCounted) {
  Drawing run({"--prompt", "a", "--seed", "5", "--num_inference_steps", "9", "--sigmas", "1,0.6,0.3"});
  EXPECT_EQ(run.draw(writing(run.folder().path())), 0);
  EXPECT_EQ(run.ledger().find("000000.png")->settings["num_inference_steps"], 3);
  EXPECT_NE(run.report().dump().find("num_inference_steps 9 has no effect: sigmas lay out 3"),
            std::string::npos);
}

TEST(Draw, AForeignFileFailsItsPictureAlone) {
  Drawing run({"--prompt", "a", "b", "--seed", "5"});
  run.folder().write("000000.png", "somebody's");
  size_t drawn = 0;
  const auto start = writing(run.folder().path());
  const int code = run.draw([&](const auto& job, const Batches& batches, const auto& events, auto stop) {
    for (const auto& batch : batches) drawn += batch.size();
    return start(job, batches, events, stop);
  });
  EXPECT_EQ(code, 1);
  EXPECT_EQ(drawn, 1U);
  EXPECT_EQ(read_file(run.folder() / "000000.png"), "somebody's");
  EXPECT_FALSE(run.ledger().find("000000.png")->is_done);
  EXPECT_EQ(run.report()["pictures"]["failed"], 1);
}

TEST(Draw, WhatNobodyHeardOfIsRecordedWhenARunIsInterrupted) {
  Drawing run({"--prompt", "a", "b", "c", "--seed", "5"});
  message_of(Kind::kInterrupted, [&] { run.draw(writing(run.folder().path(), 2)); });
  for (const char* name : {"000000.png", "000001.png", "000002.png"}) {
    const auto record = run.ledger().find(name);
    ASSERT_TRUE(record) << name;
    EXPECT_EQ(record->sha256, sha256(read_file(run.folder() / name)));
  }
  EXPECT_EQ(run.report()["pictures"]["drawn"], 3);
}

TEST(Draw, ASecondRunInTheFolderIsRefused) {
  Drawing run({"--prompt", "a", "--seed", "5"});
  int code = run.draw([&](const auto& job, const Batches& batches, const auto& events, auto stop) {
    const auto message = message_of(Kind::kUsage, [&] { run.draw(writing(run.folder().path())); });
    EXPECT_NE(message.find("another run is drawing into"), std::string::npos) << message;
    return writing(run.folder().path())(job, batches, events, stop);
  });
  EXPECT_EQ(code, 0);
}

TEST(Draw, NodesKeepTheirReportsApart) {
  Drawing run({"--prompt", "a", "b", "--seed", "5", "--num_nodes", "2", "--node_rank", "1"});
  EXPECT_EQ(run.draw(writing(run.folder().path())), 0);
  EXPECT_EQ(run.report("report_node1.json")["pictures"]["drawn"], 1);
}

TEST(Draw, PromptsWithoutASeedGetOneEach) {
  Drawing run({"--prompt", "a", "a", "--num_images_per_prompt", "2"});
  EXPECT_EQ(run.draw(writing(run.folder().path())), 0);
  const auto seed = [&](const char* name) { return run.ledger().find(name)->seed; };
  EXPECT_NE(seed("000000_00.png"), seed("000001_00.png"));
  EXPECT_EQ(seed("000000_01.png"), seed("000000_00.png") + 1);
}

TEST(Draw, SlowAMillionRowsTakeFewMegabytes) {
  const Scratch scratch;
  const auto file = scratch / "rows.jsonl";
  constexpr int64_t kRows = 1'000'000;
  {
    std::ofstream rows(file);
    for (int64_t i = 0; i < kRows; ++i)
      rows << R"({"prompt": "a picture of the number )" << i
           << R"( in a field of poppies", "output_path": "p)" << i / 1000 << "/" << i << "\"}\n";
  }
  Drawing run({"--prompts_file", file.string(), "--batch_size", "4", "--height", "64", "--width", "64"});
  const int64_t before = report::anonymous_host_bytes();
  int64_t most = 0, seen = 0, stored = 0;
  run.draw([&](const auto&, const Batches& batches, const auto& events, auto) {
    const auto next_batch = batches.source();
    for (auto batch = next_batch(); !batch.empty(); batch = next_batch()) {
      seen += std::ssize(batch);
      if (seen % 2000 != 0) continue;
      ++stored;
      events.on_stored({.request = batch.front(), .stored = {{"hash", 10, 0.1}, {}}});
      most = std::max(most, report::anonymous_host_bytes() - before);
    }
    return cluster::RunResult{};
  });
  EXPECT_EQ(seen, kRows);
  EXPECT_EQ(run.report()["pictures"]["drawn"], stored);
  RecordProperty("megabytes", static_cast<int>(most >> 20));
  EXPECT_LT(most, 60 << 20);
}

}  // namespace
}  // namespace atelier::app
