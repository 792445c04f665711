// Configuration files: types, lines of mistakes, hostile input.
#include "app/settings/config.h"

#include <random>

#include "base/scratch.h"

namespace atelier::app {
namespace {

Json load_config(const std::filesystem::path& file) {
  return read_config(file).values;
}

TEST(Config, PlainScalarsAreTypedAndQuotedOnesAreText) {
  const Scratch dir;
  const Config c =
      read_config(dir.write("c.yaml",
                            "steps: 28\nguidance: 3.5\nbig: 18446744073709551615\nneg: -4\nhex: 0x1F\n"
                            "resume: yes\ntf32: Off\nquiet: true\nnone: null\nempty:\n"
                            "quoted: \"yes\"\nsingle: '12'\ntext: a red circle\nversion: 1.2.3\nplus: +5\n"
                            "long: 123456789012345678901234567890\n"
                            "list: [1, two, 3.0]\nnested:\n  inner: on\nblock: |\n  12\n"));
  const Json& v = c.values;
  EXPECT_EQ(v["steps"], 28);
  EXPECT_TRUE(v["steps"].is_number_integer());
  EXPECT_EQ(v["guidance"], 3.5);
  EXPECT_EQ(v["big"], 18446744073709551615ULL);
  EXPECT_EQ(v["neg"], -4);
  EXPECT_EQ(v["hex"], 31);
  EXPECT_EQ(v["resume"], true);
  EXPECT_EQ(v["tf32"], false);
  EXPECT_EQ(v["quiet"], true);
  EXPECT_TRUE(v["none"].is_null());
  EXPECT_TRUE(v["empty"].is_null());
  EXPECT_EQ(v["quoted"], "yes");
  EXPECT_EQ(v["single"], "12");
  EXPECT_EQ(v["text"], "a red circle");
  EXPECT_EQ(v["version"], "1.2.3");
  EXPECT_EQ(v["plus"], 5);
  EXPECT_TRUE(v["long"].is_string());
  EXPECT_EQ(v["list"], (Json{1, "two", 3.0}));
  EXPECT_EQ(v["nested"]["inner"], true);
  EXPECT_EQ(v["block"], "12\n");
  EXPECT_EQ(c.lines.at("guidance"), 2);
  EXPECT_EQ(c.lines.at("nested.inner"), 19);
}

TEST(Config, JsonIsReadAsItStands) {
  const Scratch dir;
  EXPECT_EQ(load_config(dir.write("c.json", "{\"a\": \"yes\", \"b\": [1]}")),
            (Json{{"a", "yes"}, {"b", {1}}}));
  EXPECT_EQ(load_config(dir.write("c.json", " \n")), Json::object());
  EXPECT_EQ(load_config(dir.write("c.yml", "# nothing\n")), Json::object());
}

TEST(Config, MistakesAreNamedWithTheirLine) {
  const Scratch dir;
  const auto usage = [&](const char* name, const std::string& text) {
    return message_of(Kind::kUsage, [&] { load_config(dir.write(name, text)); });
  };
  EXPECT_NE(usage("c.yaml", "a: 1\nb: [1, 2\nc: 3\n").find("c.yaml:"), std::string::npos);
  EXPECT_NE(usage("c.yaml", "a: 1\nb: 2\na: 3\n").find("c.yaml:3: the key \"a\""), std::string::npos);
  EXPECT_NE(usage("c.yaml", "- 1\n").find("top level"), std::string::npos);
  EXPECT_NE(usage("c.yaml", "a: *nowhere\n").find(":1"), std::string::npos);
  EXPECT_NE(usage("c.json", "{\n\"a\": }").find("line 2"), std::string::npos);
  EXPECT_NE(usage("c.json", "{\"a\": 1, \"a\": 2}").find("twice"), std::string::npos);
  EXPECT_NE(usage("c.json", "[1]").find("object"), std::string::npos);
  EXPECT_NE(usage("c.toml", "a = 1").find(".yaml"), std::string::npos);
  EXPECT_NE(usage("c.yaml", "a: \xFF").find("UTF-8"), std::string::npos);
  EXPECT_NE(message_of(Kind::kUsage, [&] { load_config(dir / "absent.yaml"); }).find("absent.yaml"),
            std::string::npos);
}

TEST(Config, HostileFilesAreRefused) {
  const Scratch dir;
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    bomb += str("a", i, ": &a", i, " [");
    for (int k = 0; k < 10; ++k) bomb += str(k > 0 ? ", " : "", "*a", i - 1);
    bomb += "]\n";
  }
  EXPECT_NE(message_of(Kind::kUsage, [&] { load_config(dir.write("c.yaml", bomb)); }).find("more than"),
            std::string::npos);
  message_of(Kind::kUsage, [&] {
    load_config(dir.write("c.yaml", "a: " + std::string(2000, '[') + std::string(2000, ']')));
  });
  message_of(Kind::kUsage, [&] { load_config(dir.write("c.yaml", "a: " + std::string(100000, '['))); });
  message_of(Kind::kUsage, [&] { load_config(dir.write("c.json", "{\"a\":" + std::string(100000, '['))); });
}

TEST(Config, RandomBytesNeverCrash) {
  std::mt19937 random(5);
  const std::string seed = "a: 1\nb: [x, \"y\"]\nc:\n  d: &k yes\n  e: *k\n";
  for (int round = 0; round < 1500; ++round) {
    std::string text = seed;
    for (size_t k = random() % 12; k > 0; --k)
      text[random() % text.size()] = static_cast<char>(random() % 127 + 1);
    try {
      parse_config(text, round % 4 == 0 ? "f.json" : "f.yaml");
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), Kind::kUsage);
    }
  }
}

TEST(Config, TextStaysAsItIsWritten) {
  const Scratch dir;
  const Config c =
      read_config(dir.write("c.yaml", "prompt: yes\nlist: [007, off, 1e3, 'x']\nnone: ~\nin:\n  a: 0x10\n"));
  EXPECT_EQ(c.values["prompt"], true);
  EXPECT_EQ(c.written["prompt"], "yes");
  EXPECT_EQ(c.written["list"], (Json{"007", "off", "1e3", "x"}));
  EXPECT_EQ(c.written["in"]["a"], "0x10");
}

TEST(Config, ASecondDocumentIsRefused) {
  const Scratch dir;
  const auto message =
      message_of(Kind::kUsage, [&] { read_config(dir.write("c.yaml", "seed: 1\n---\nseed: 2\n")); });
  EXPECT_NE(message.find("c.yaml:3"), std::string::npos) << message;
  EXPECT_EQ(read_config(dir.write("d.yaml", "---\nseed: 1\n...\n")).values["seed"], 1);
  EXPECT_EQ(read_config(dir.write("e.yaml", "---\nseed: 1\n---\n")).values["seed"], 1);
}

}  // namespace
}  // namespace atelier::app
