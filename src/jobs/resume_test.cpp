// What a second run into a folder draws again, keeps and refuses; and who may draw into it.
#include "jobs/resume.h"

#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/scratch.h"
#include "jobs/folder_claim.h"
#include "jobs/records_for_test.h"
#include "request/settings.h"

namespace atelier::jobs {
namespace {
namespace fs = std::filesystem;

Json as_text(const Json& settings) {
  Json out = Json::object();
  for (const auto& [key, value] : settings.items())
    if (!value.is_null()) out[key] = value.is_string() ? value.get<std::string>() : value.dump();
  return out;
}

// A file is whole if it begins with "whole"; what follows is what it says of itself.
Inspection inspect(const fs::path& file) {
  const std::string bytes = read_file(file);
  Inspection out{bytes.starts_with("whole"), sha256(bytes), bytes.size(), nullptr};
  if (out.is_whole && bytes.size() > 5) out.look = Json::parse(bytes.substr(5));
  return out;
}

ScanRules rules(Resume resume, const Json& run = kRun) {
  return {resume, Foreign::kRefused, [run](const request::Request& i) { return request::look(i, run); },
          as_text, inspect};
}

void finish(const Scratch& dir, Ledger& ledger, const request::Request& i, const Json& run = kRun) {
  dir.write(i.name, "whole");
  ledger.append(done_record(i, request::look(i, run), stored("whole", 1)));
}

TEST(Resume, FinishedPicturesAreLeftOut) {
  const Scratch dir;
  Ledger ledger(dir / kLedgerName);
  const request::RequestList requests = {request(0), request(1), request(2), request(3), request(4)};
  EXPECT_EQ(scan(requests, dir.path(), ledger, rules(Resume::kRedoChanged)).todo.size(), 5U);
  EXPECT_EQ(scan(requests, dir.path(), ledger, rules(Resume::kRedoChanged)).summary, "");
  finish(dir, ledger, requests[0]);
  finish(dir, ledger, requests[1]);
  dir.write("1.png", "x");  // not what was written, and not whole
  finish(dir, ledger, requests[2]);
  ledger.append(failed_record(requests[3], kRun, "e"));
  const Scan s = scan(requests, dir.path(), ledger, rules(Resume::kRedoChanged));
  ASSERT_EQ(s.todo.size(), 3U);
  EXPECT_EQ(s.todo[0].name, "1.png");
  EXPECT_EQ(s.todo[1].name, "3.png");
  EXPECT_EQ(s.skipped, 2);
  EXPECT_EQ(s.failed_before, 1);
  EXPECT_EQ(s.count.at(Found::kDone), 2);
  EXPECT_EQ(s.summary,
            "resume: 2 of 5 pictures are there, 3 to draw; 1 file is damaged and drawn again; 1 failed the "
            "last time");
  EXPECT_EQ(scan(requests, dir.path(), ledger, rules(Resume::kOff)).todo.size(), 5U);
}

TEST(Resume, AFileOfSomebodyElseIsNeitherTakenNorDrawnOver) {
  const Scratch dir;
  Ledger ledger(dir / kLedgerName);
  const request::RequestList requests = {request(0), request(1), request(2), request(3)};
  dir.write("0.png", "whole");
  dir.write("1.png", "notes of somebody");
  finish(dir, ledger, requests[2]);
  dir.write("2.png", "whole{\"edited\": \"yes\"}");  // says that it is ours, with other settings
  dir.write("3.png", "");
  const Scan s = scan(requests, dir.path(), ledger, rules(Resume::kRedoChanged));
  ASSERT_EQ(s.refused.size(), 2U);
  EXPECT_EQ(s.refused[0].request.name, "0.png");
  EXPECT_NE(s.refused[0].reason.find((dir / "0.png").string()), std::string::npos);
  EXPECT_EQ(s.count.at(Found::kForeign), 2);
  EXPECT_EQ(s.count.at(Found::kChanged), 1);
  EXPECT_EQ(s.count.at(Found::kDamaged), 1);  // an empty file holds nobody's work
  EXPECT_EQ(s.todo.size(), 2U);
  const Scan kept = scan(requests, dir.path(), ledger, rules(Resume::kKeepChanged));
  EXPECT_TRUE(kept.refused.empty());
  EXPECT_NE(kept.summary.find("2 files of somebody else kept"), std::string::npos) << kept.summary;
  auto off = rules(Resume::kOff);
  EXPECT_EQ(scan(requests, dir.path(), ledger, off).refused.size(), 2U);
  off.foreign = Foreign::kOverwritten;
  const Scan over = scan(requests, dir.path(), ledger, off);
  EXPECT_EQ(over.todo.size(), 4U);
  EXPECT_EQ(over.summary,
            "2 pictures of earlier runs are drawn over; 2 files of somebody else are drawn over");
}

TEST(Resume, APictureThatTheLedgerMissedSaysItselfWhatItIs) {
  const Scratch dir;
  Ledger ledger(dir / kLedgerName);
  Json look = as_text(request::look(request(0), kRun));
  dir.write("0.png", "whole" + look.dump());
  Json unset = kRun;
  unset["seed"] = nullptr;
  for (const Json& run : {kRun, unset}) {
    const Scan s = scan({request(0)}, dir.path(), ledger, rules(Resume::kRedoChanged, run));
    EXPECT_TRUE(s.todo.empty());
    ASSERT_EQ(s.adopted.size(), 1U);
    EXPECT_EQ(s.adopted[0].seed, 9U);
    EXPECT_EQ(s.adopted[0].settings, request::look(request(0), kRun));
  }
  look["num_inference_steps"] = "5";
  dir.write("0.png", "whole" + look.dump());
  EXPECT_EQ(scan({request(0)}, dir.path(), ledger, rules(Resume::kRedoChanged))
                .changes.count("num_inference_steps"),
            1U);
}

TEST(Resume, NamesThatCannotBeFilesAreRefusedBeforeDrawing) {
  const Scratch dir;
  Ledger ledger(dir / kLedgerName);
  std::vector<request::Request> requests(5);
  for (size_t i = 0; i < 5; ++i)
    requests[i].name = std::vector{"d", "f/x.png", "l", "l/x.png", "new/x.png"}[i];
  fs::create_directories(dir / "d");
  dir.write("f", "x");
  fs::create_symlink(dir / "d", dir / "l");
  const Scan s = scan(request::RequestList(requests), dir.path(), ledger, rules(Resume::kRedoChanged));
  ASSERT_EQ(s.refused.size(), 4U);
  EXPECT_NE(s.refused[0].reason.find("Is a directory"), std::string::npos);
  EXPECT_NE(s.refused[1].reason.find("where a folder is needed"), std::string::npos);
  EXPECT_NE(s.refused[2].reason.find("symbolic link"), std::string::npos);
  EXPECT_EQ(s.todo.size(), 1U);
}

TEST(Claim, OneRunAtATimePerShareOfAFolder) {
  const Scratch dir;
  {
    const FolderClaim whole(dir.path(), 0, 1);
    EXPECT_NE(message_of(Kind::kUsage, [&] { FolderClaim(dir.path(), 0, 1); }).find("another run is drawing"),
              std::string::npos);
    message_of(Kind::kUsage, [&] { FolderClaim(dir.path(), 1, 2); });
    Ledger(dir / kLedgerName).append(done_record(request(0), kRun, stored("x", 1)));  // nobody is in its way
  }
  const FolderClaim first(dir.path(), 0, 2), second(dir.path(), 1, 2);
  message_of(Kind::kUsage, [&] { FolderClaim(dir.path(), 1, 3); });
  message_of(Kind::kUsage, [&] { FolderClaim(dir.path(), 0, 1); });
}

TEST(Resume, EverySubIndexIsChecked) {
  const Scratch dir;
  Ledger ledger(dir / kLedgerName);
  std::vector<request::Request> requests = {request(0), request(0), request(0)};
  for (int s = 0; s < 3; ++s) {
    requests[static_cast<size_t>(s)].sub = s;
    requests[static_cast<size_t>(s)].name = str("0_0", s, ".png");
  }
  finish(dir, ledger, requests[0]);
  finish(dir, ledger, requests[2]);
  const Scan result = scan(request::RequestList(requests), dir.path(), ledger, rules(Resume::kRedoChanged));
  ASSERT_EQ(result.todo.size(), 1U);
  EXPECT_EQ(result.todo[0].sub, 1);
}

TEST(Resume, OtherSettingsAreReportedAndRedoneOrKept) {
  const Scratch dir;
  Ledger ledger(dir / kLedgerName);
  const request::RequestList requests = {request(0), request(1)};
  for (const request::Request& i : requests) finish(dir, ledger, i);
  Json other = kRun;
  other["num_inference_steps"] = 8;
  const Scan redo = scan(requests, dir.path(), ledger, rules(Resume::kRedoChanged, other));
  EXPECT_EQ(redo.todo.size(), 2U);
  EXPECT_EQ(redo.changes.at("num_inference_steps").pictures, 2);
  EXPECT_EQ(redo.summary,
            "resume: 0 of 2 pictures are there, 2 to draw; 2 were made with other settings "
            "(num_inference_steps: 2, 4 -> 8) and drawn again");
  const Scan keep = scan(requests, dir.path(), ledger, rules(Resume::kKeepChanged, other));
  EXPECT_TRUE(keep.todo.empty());
  EXPECT_NE(keep.summary.find("kept"), std::string::npos);
}

TEST(Resume, ARandomSeedOfTheLastRunDoesNotCount) {
  const Scratch dir;
  Ledger ledger(dir / kLedgerName);
  finish(dir, ledger, request(0));
  Json unset = kRun;
  unset["seed"] = nullptr;
  EXPECT_TRUE(scan({request(0)}, dir.path(), ledger, rules(Resume::kRedoChanged, unset)).todo.empty());
}

}  // namespace
}  // namespace atelier::jobs
