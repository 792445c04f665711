// Prompt files of all four kinds, good and bad, and random bytes.
#include "request/prompts.h"

#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <streambuf>
#include <thread>

#include "base/scratch.h"
#include "base/testing.h"
#include "base/text.h"
#include "request/csv.h"
#include "request/lines.h"
#include "request/work.h"

namespace atelier::request {
namespace fs = std::filesystem;
namespace {

std::vector<int64_t> indices(const Prompts& prompts) {
  std::vector<int64_t> out;
  for (const PromptRow& row : prompts.rows) out.push_back(row.request.index);
  return out;
}

using Indices = std::vector<int64_t>;

TEST(PromptFile, TheSameIndexTwiceIsBadOnlyWhereItNamesTheFile) {
  const Prompts p = parse_prompts(
      "{\"prompt\":\"a\",\"index\":1}\n{\"prompt\":\"b\",\"output_path\":\"b.png\"}\n{\"prompt\":\"c\","
      "\"index\":1}\n",
      "p.jsonl");
  EXPECT_EQ(indices(p), (Indices{1, 1}));
  ASSERT_EQ(p.bad.size(), 1U);
  EXPECT_NE(p.bad[0].reason.find("index 1 is already used at p.jsonl:1"), std::string::npos);
}

TEST(PromptFile, JsonlTakesObjectsAndTextsAndCountsPhysicalLines) {
  const Scratch dir;
  const auto file = dir.write(
      "p.jsonl",
      "{\"prompt\": \"a cat\", \"other\": [1]}\r\n\r\n\"a dog\"\n  {\"prompt\":\"猫\",\"index\":70}");
  const Prompts p = read_prompts(file);
  EXPECT_TRUE(p.bad.empty());
  EXPECT_EQ(indices(p), (Indices{0, 2, 70}));
  EXPECT_EQ(p.rows[0].request.prompt, "a cat");
  EXPECT_EQ(p.rows[1].request.prompt, "a dog");
  EXPECT_EQ(p.rows[2].request.prompt, "猫");
  EXPECT_TRUE(p.rows[1].request.where.ends_with("p.jsonl:3")) << p.rows[1].request.where;
}

TEST(PromptFile, EveryFieldOfARowIsRead) {
  const Scratch dir;
  const auto good = dir.write(
      "q.jsonl",
      R"({"prompt":"a","negative_prompt":"b","height":512,"width":"768","seed":18446744073709551615,)"
      R"("num_inference_steps":4.0,"guidance_scale":"3.5","num_images_per_prompt":2,"index":"7",)"
      R"("output_path":"x/y.jpg"})");
  const PromptRow row = read_prompts(good).rows[0];
  EXPECT_EQ(row.request.negative_prompt, "b");
  EXPECT_TRUE(row.request.negative_prompt.has_value());
  EXPECT_EQ(row.request.height, 512);
  EXPECT_EQ(row.request.width, 768);
  EXPECT_EQ(row.request.seed, 18446744073709551615ULL);
  EXPECT_EQ(row.request.num_inference_steps, 4);
  EXPECT_EQ(row.request.guidance_scale, 3.5);
  EXPECT_EQ(row.images, 2);
  EXPECT_EQ(row.request.index, 7);
  EXPECT_EQ(row.custom_name, "x/y.jpg");
}

TEST(PromptFile, PicturesLieRelativeToTheFileThatNamesThem) {
  const Scratch dir;
  const auto file =
      dir.write("q.jsonl", R"({"prompt":"a","image":"in/a.png","mask":"/b.png","strength":"0.5"})");
  const auto row = read_prompts(file).rows[0].request;
  EXPECT_EQ(row.image, (dir / "in/a.png").string());
  EXPECT_EQ(row.mask, "/b.png");
  EXPECT_EQ(row.strength, 0.5);
  const auto own = parse_prompts("prompt,image_sha256,image\nx,7,\n", "p.csv");
  EXPECT_FALSE(own.rows[0].request.image_sha256 || own.rows[0].request.image);
  EXPECT_EQ(own.warnings.size(), 1u) << "what files hold is found out, not said";
}

TEST(PromptFile, PathsOfRowsAreSpelledOut) {
  const auto p = parse_prompts(R"({"prompt":"a","image":"~/a.png","lora":["~/s:0.5; ~/t","u"]})"
                               "\n",
                               "/in/p.jsonl", {.spelled_out = [](const std::string& path) {
                                 return path.starts_with('~') ? "/h" + path.substr(1) : path;
                               }});
  EXPECT_EQ(p.rows[0].request.image, "/h/a.png");
  EXPECT_EQ(p.rows[0].request.lora, (std::vector<std::string>{"/h/s:0.5;/h/t", "u"}));
}

TEST(PromptFile, NullMeansUnsetAndAnEmptyNegativeIsOne) {
  const Scratch dir;
  const auto file = dir.write("p.jsonl",
                              "{\"prompt\":\"a\",\"height\":null,\"negative_prompt\":null,\"index\":null}\n"
                              "{\"prompt\":\"a\",\"negative_prompt\":\"\"}\n");
  const Prompts p = read_prompts(file);
  EXPECT_EQ(p.rows[0].request.height, std::nullopt);
  EXPECT_FALSE(p.rows[0].request.negative_prompt.has_value());
  EXPECT_TRUE(p.rows[1].request.negative_prompt.has_value());
  EXPECT_EQ(indices(p), (Indices{0, 1}));
}

TEST(PromptFile, SeriesOfNumbersMayBeLists) {
  const Prompts p = parse_prompts(
      "{\"prompt\":\"a\",\"sigmas\":[1.0,0.75,0.5]}\n"
      "{\"prompt\":\"a\",\"timesteps\":[999,500],\"num_inference_steps\":7}\n"
      "{\"prompt\":\"a\",\"sigmas\":\"1,0.5\"}\n"
      "{\"prompt\":\"a\",\"sigmas\":[1,\"x\"]}\n"
      "{\"prompt\":[1,2]}\n"
      "{\"prompt\":\"a\",\"sampler\":[1]}\n",
      "p.jsonl");
  ASSERT_EQ(p.rows.size(), 3U);
  EXPECT_EQ(p.rows[0].request.sigmas, "1.0,0.75,0.5");
  EXPECT_EQ(p.rows[1].request.timesteps, "999,500");
  EXPECT_EQ(p.rows[2].request.sigmas, "1,0.5");
  ASSERT_EQ(p.bad.size(), 3U);
  EXPECT_NE(p.bad[0].reason.find("sigmas must be numbers, not a list with \"x\""), std::string::npos)
      << p.bad[0].reason;
  EXPECT_NE(p.bad[1].reason.find("prompt must be text"), std::string::npos) << p.bad[1].reason;
  EXPECT_NE(p.bad[2].reason.find("sampler must be"), std::string::npos) << p.bad[2].reason;
}

TEST(PromptFile, BadRowsAreNamedAndTheOthersGoOn) {
  const Scratch dir;
  const std::string deep = "{\"prompt\":\"a\",\"x\":" + std::string(5000, '[') + std::string(5000, ']') + "}";
  const std::string text =
      "{\"prompt\":\"good\"}\n"              // 1
      "{\"prompt\":\"cut\n"                  // 2
      "{\"text\":\"x\"}\n"                   // 3
      "[1]\n"                                // 4
      "{\"prompt\":\"a\",\"height\":-8}\n"   // 5
      "{\"prompt\":\"a\",\"seed\":\"x\"}\n"  // 6
      "{\"prompt\":\"a\",\"index\":0}\n"     // 7
      "{\"prompt\":\"\xFF\"}\n"              // 8
      "{\"prompt\":\"  \"}\n"                // 9
      "{\"prompt\":5}\n" +                   // 10
      deep +
      "\n"                                                          // 11
      "{\"prompt\":\"a\",\"guidance_scale\":1e999}\n"               // 12
      "{\"prompt\":\"a\\u0000b\"}\n"                                // 13
      "{\"prompt\":\"a\",\"num_images_per_prompt\":99999999999}\n"  // 14
      "{\"prompt\":\"also good\"}\n";
  const Prompts p = read_prompts(dir.write("p.jsonl", text));
  EXPECT_EQ(indices(p), (Indices{0, 14}));
  const std::vector<std::string> reasons = {"not valid JSON",
                                            "no prompt",
                                            "must be an object",
                                            "height must be",
                                            "seed must be",
                                            "index 0 is already used at",
                                            "not UTF-8",
                                            "empty",
                                            "prompt must be text",
                                            "deeper",
                                            "not valid JSON",
                                            "NUL",
                                            "num_images_per_prompt must be"};
  ASSERT_EQ(p.bad.size(), reasons.size());
  for (size_t i = 0; i < reasons.size(); ++i) {
    EXPECT_NE(p.bad[i].reason.find(reasons[i]), std::string::npos) << p.bad[i].reason;
    EXPECT_TRUE(p.bad[i].where.ends_with(str("p.jsonl:", i + 2))) << p.bad[i].where;
  }
}

TEST(PromptFile, EveryFieldOfTheListIsAColumn) {
  PromptRow().fields([](const Field& field, const FieldRef& of) {
    if (field.name == "prompt" || field.name == "input_images") return;  // it is taken apart while it is read
    const std::string name(field.name), word = field.choices.empty() ? "1" : words_of(field.choices)[0];
    Prompts p = parse_prompts(str("prompt,", name, "\nx,", word, is_list(of) ? " 1" : "", "\n"), "p.csv");
    ASSERT_EQ(p.rows.size(), 1u) << name;
    EXPECT_TRUE(p.warnings.empty()) << name;
    p.rows[0].fields([&](const Field& other, const FieldRef& slot) {
      if (other.name != field.name) return;
      EXPECT_NE(json_of(slot).dump().find(word), std::string::npos) << name;
    });
  });
}

TEST(PromptFile, NamesThatNobodyKnowsAreToldOnceWithTheNearest) {
  const Prompts p = parse_prompts(
      "{\"prompt\":\"a\",\"steps\":4,\"num_inference_step\":3,\"cfg\":9,\"negative\":\"b\",\"id\":1}\n"
      "{\"prompt\":\"a\",\"steps\":4,\"output_path\":\"x\"}\n",
      "p.jsonl", {.output_name_column = "id"});
  ASSERT_EQ(p.warnings.size(), 4u);
  const char* expected[] = {"\"cfg\" has no effect; did you mean guidance_scale?",
                            "\"negative\" has no effect; did you mean negative_prompt?",
                            "\"num_inference_step\" has no effect; did you mean num_inference_steps?",
                            "\"steps\" has no effect; did you mean num_inference_steps?"};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NE(p.warnings[i].find(expected[i]), std::string::npos) << p.warnings[i];
    EXPECT_TRUE(p.warnings[i].starts_with("p.jsonl:1: ")) << p.warnings[i];
  }
  EXPECT_EQ(parse_prompts("prompt,colour\na,\nb,9\n", "p.csv").warnings.at(0),
            "p.csv:3: the field \"colour\" has no effect");
}

TEST(PromptFile, JsonArraysCountPlacesAndNameLines) {
  const Scratch dir;
  const Prompts p =
      read_prompts(dir.write("p.json",
                             "[\n  \"a, [b]\",\n  {\"prompt\": \"c \\\" d\",\n   \"k\": [1, {\"z\": 2}]},\n\n"
                             "  {\"index\": 3},\n  7,\n  {\"prompt\": \"e\"}]"));
  EXPECT_EQ(indices(p), (Indices{0, 1, 4}));
  EXPECT_EQ(p.rows[0].request.prompt, "a, [b]");
  EXPECT_EQ(p.rows[1].request.prompt, "c \" d");
  ASSERT_EQ(p.bad.size(), 2U);
  EXPECT_TRUE(p.bad[0].where.ends_with(":6")) << p.bad[0].where;
  EXPECT_TRUE(p.bad[1].where.ends_with(":7")) << p.bad[1].where;
  for (const char* text : {"{\"prompt\":\"a\"}", "[\"a\"", "", "[]", "5"}) {
    message_of(Kind::kUsage, [&] { read_prompts(dir.write("q.json", text)); });
  }
  message_of(Kind::kUsage, [&] { read_prompts(dir.write("d.json", std::string(100000, '['))); });
}

TEST(PromptFile, TextFilesHaveOnePromptPerLine) {
  const Scratch dir;
  const Prompts p =
      read_prompts(dir.write("p.txt", "\xEF\xBB\xBF  a cat \r\n\r\n\ta dog, \"quoted\"\rbad \xC0\x80\n"));
  EXPECT_EQ(indices(p), (Indices{0, 2}));
  EXPECT_EQ(p.rows[0].request.prompt, "a cat");
  EXPECT_EQ(p.rows[1].request.prompt, "a dog, \"quoted\"");
  ASSERT_EQ(p.bad.size(), 1U);
  EXPECT_TRUE(p.bad[0].where.ends_with(":4"));
}

TEST(PromptFile, WrongFilesAreUsageErrors) {
  const Scratch dir;
  EXPECT_NE(message_of(Kind::kUsage, [&] { read_prompts(dir / "absent.txt"); }).find("absent.txt"),
            std::string::npos);
  EXPECT_NE(message_of(Kind::kUsage, [&] { read_prompts(dir.write("p.yaml", "a")); }).find(".jsonl"),
            std::string::npos);
  EXPECT_NE(message_of(Kind::kUsage,
                       [&] {
                         read_prompts(dir.write("p.txt",
                                                "\xFF\xFE"
                                                "a"));
                       })
                .find("UTF-16"),
            std::string::npos);
  EXPECT_NE(message_of(Kind::kUsage, [&] { read_prompts(dir.write("p.jsonl", "{}\n{}\n")); }).find(":1"),
            std::string::npos);
  message_of(Kind::kUsage, [&] { read_prompts(dir.write("e.txt", "\n \n")); });
  std::filesystem::create_directory(dir / "folder.txt");
  message_of(Kind::kUsage, [&] { read_prompts(dir / "folder.txt"); });
}

TEST(PromptFile, NamesComeFromTheColumnAskedFor) {
  const Scratch dir;
  const auto file = dir.write("p.csv", "prompt,id,output_path\na,7,x\nb,,y\n");
  const Prompts p = read_prompts(file, {.output_name_column = "id"});
  EXPECT_EQ(p.rows[0].custom_name, "7");
  EXPECT_EQ(p.rows[1].custom_name, "");
  EXPECT_EQ(read_prompts(file).rows[1].custom_name, "y");
  EXPECT_NE(
      message_of(Kind::kUsage, [&] { read_prompts(file, {.output_name_column = "name"}); }).find("name"),
      std::string::npos);
}

TEST(PromptFile, RandomBytesNeverCrash) {
  std::mt19937 random(7);
  const std::string alphabet = "{}[]\",:\\\n\r\t 0-9eprompt\xEF\xBB\xBF\xC3\xFFindex";
  const std::string seeds[] = {"{\"prompt\":\"a\",\"seed\":1,\"index\":2}\n\"b\"\n",
                               "prompt,index\n\"a\nb\",1\nc,2\n", "[\"a\",{\"prompt\":\"b\",\"x\":[1,2]}]"};
  const char* names[] = {"f.jsonl", "f.json", "f.csv", "f.txt"};
  int valid = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = round % 2 == 0 ? "" : seeds[random() % 3];
    const size_t edits = random() % 40;
    for (size_t i = 0; i < edits; ++i) {
      const char c = random() % 4 == 0 ? static_cast<char>(random()) : alphabet[random() % alphabet.size()];
      text.insert(text.begin() + static_cast<int64_t>(random() % (text.size() + 1)), c);
      if (random() % 3 == 0) text.erase(random() % text.size(), 1);
    }
    try {
      Prompts p = parse_prompts(text, names[round % 4]);
      const auto items = expand(p, {});
      valid += !items.empty();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), Kind::kUsage);
    }
  }
  EXPECT_GT(valid, 100);  // the loop reaches beyond the first checks
}

TEST(PromptFile, NothingBehindTheLimitIsLookedAt) {
  const Scratch dir;
  for (const auto& [name, text] :
       {std::pair("p.jsonl", "\"a\"\n{bad\n\"b\"\n{bad\n"), std::pair("p.json", "[\"a\", 1, \"b\", 2]"),
        std::pair("p.txt", "a\n\xFF\nb\n\xFF\n"), std::pair("p.csv", "prompt\na\n\xFF\nb\n\xFF\n")}) {
    const auto file = dir.write(name, text);
    EXPECT_EQ(read_prompts(file, {.limit = 1}).bad.size(), 0U) << name;
    const Prompts two = read_prompts(file, {.limit = 2});
    EXPECT_EQ(two.rows.size(), 2U) << name;
    ASSERT_EQ(two.bad.size(), 1U) << name;
    EXPECT_EQ(two.bad[0].before, 1) << name;
    EXPECT_EQ(read_prompts(file).bad.size(), 2U) << name;
  }
}

TEST(PromptFile, APipeIsKnownByItsText) {
  const Scratch dir;
  const fs::path pipe = dir / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const auto first = [&](const std::string& text) {
    std::thread writer([&] { std::ofstream(pipe) << text; });
    const Prompts p = read_prompts(pipe);
    writer.join();
    EXPECT_EQ(p.rows.size(), 2U) << text;
    return p.rows[0].request;
  };
  EXPECT_EQ(first("a red circle\nb\n").prompt, "a red circle");
  EXPECT_EQ(first("\n{\"prompt\": \"a\", \"height\": 64}\n{\"prompt\": \"b\"}\n").height, 64);
  EXPECT_EQ(first(" [\"a\", \"b\"]").prompt, "a");
  EXPECT_EQ(first("id,\"prompt\"\n1,a\n2,b\n").prompt, "a");
  EXPECT_EQ(first("a dog, prompt and eager\nb\n").prompt, "a dog, prompt and eager");
}

TEST(Text, Utf8IsCheckedStrictly) {
  EXPECT_TRUE(is_utf8("a é 猫 😀 \xF4\x8F\xBF\xBF"));
  for (const char* bad : {"\x80", "\xC0\x80", "\xC3", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                          "\xF5\x80\x80\x80", "a\xE2\x82"}) {
    EXPECT_FALSE(is_utf8(bad));
  }
}

TEST(Text, NumbersAreReadWhole) {
  EXPECT_EQ(to_integer("12"), 12);
  EXPECT_EQ(to_integer("1024.0"), 1024);
  for (const char* bad : {"", "1.5", "1 ", "x", "1e400", "nan", "9223372036854775808", "0x10"})
    EXPECT_FALSE(to_integer(bad)) << bad;
  EXPECT_EQ(to_unsigned("18446744073709551615"), 18446744073709551615ULL);
  EXPECT_FALSE(to_unsigned("-1"));
  EXPECT_FALSE(to_number("inf"));
}

// A text without an end.
class Endless : public std::streambuf {
 public:
  explicit Endless(std::string piece) : piece_(std::move(piece)) {}

 protected:
  int underflow() override {
    setg(piece_.data(), piece_.data(), piece_.data() + piece_.size());
    return static_cast<unsigned char>(piece_[0]);
  }

 private:
  std::string piece_;
};

TEST(Prompts, EndlessRowsEndBeforeTheyFillTheMemory) {
  const TemporaryFolder folder;
  std::filesystem::create_symlink("/dev/urandom", folder.path() / "noise.jsonl");
  const auto noise = message_of(Kind::kUsage, [&] { read_prompts(folder.path() / "noise.jsonl"); });
  EXPECT_NE(noise.find("is a device"), std::string::npos) << noise;
  const auto device = message_of(Kind::kUsage, [] { read_prompts("/dev/zero"); });
  EXPECT_NE(device.find("/dev/zero gives more than 256 MiB"), std::string::npos) << device;
  std::string line;
  Endless zeros(std::string(4096, '\0'));
  const auto text = message_of(Kind::kUsage, [&] { Lines(zeros).next(line); });
  EXPECT_NE(text.find("line 1 is longer than 64 MiB"), std::string::npos) << text;
  for (const char* piece : {"a", "a,", "\"a"}) {
    Endless cells(piece);
    CsvRecord record;
    const auto message = message_of(Kind::kUsage, [&] {
      for (CsvReader reader(cells); reader.next(record);) record.cells.clear();
    });
    EXPECT_NE(message.find("longer than 64 MiB"), std::string::npos) << piece << ": " << message;
  }
}

}  // namespace
}  // namespace atelier::request
