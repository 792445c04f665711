// A run as its files tell it: ledger, report, and what becomes of them when something breaks.
#include "app/run/draw.h"

#include <sys/resource.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "app/cli/cli.h"
#include "app/cli/flags.h"
#include "base/files.h"
#include "base/scratch.h"
#include "jobs/ledger.h"
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
  int draw(const Start& start) {
    auto prompts = read_prompts(resolved_);
    auto model = find_model(resolved_, {}, [](const std::string&) {}, {});
    const Interrupt interrupt;
    return app::draw(make_run_spec(resolved_, std::move(model), std::move(prompts), 0), resolved_, interrupt,
                     start);
  }
  Json report() const { return read_json(folder_ / report::kReportName); }
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
        events.on_stored({.request = batches.at(0).at(0), .stored = {{"hash", 10, 0.1}, {}}});
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

}  // namespace
}  // namespace atelier::app
