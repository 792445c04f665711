#include "weights/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "base/files.h"
#include "base/testing.h"
#include "weights/safetensors_writer.h"

namespace atelier::weights {
namespace {

using ::testing::HasSubstr;

std::string file_of(std::string_view header, size_t data_bytes) {
  const auto length = static_cast<uint64_t>(header.size());
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  return out.append(header).append(data_bytes, 'x');
}

std::string tensor(std::string_view name, std::string_view dtype, std::string_view shape,
                   std::string_view offsets) {
  return str('"', name, R"(":{"dtype":")", dtype, R"(","shape":)", shape, R"(,"data_offsets":)", offsets,
             "}");
}

std::string open_error(const TemporaryFolder& folder, const std::string& bytes) {
  const auto path = folder / "a.safetensors";
  write_file_atomically(path, bytes);
  return message_of(Kind::kCheckpoint, [&] { TensorFile::open(path); });
}

TEST(Safetensors, ReadsWhatTheWriterWrote) {
  const TemporaryFolder folder;
  const std::vector<float> a{1, 2, 3, 4, 5, 6};
  const std::vector<int8_t> b{7, 8, 9};
  const Whole tensors[] = {{{"b", DType::kI8, {3}}, std::as_bytes(std::span(b))},
                           {{"a \"quoted\"\n", DType::kF32, {2, 3}}, std::as_bytes(std::span(a))},
                           {{"none", DType::kBF16, {0, 4}}, {}}};
  write_safetensors(folder / "x" / "t.safetensors", tensors, {{"format", "pt"}});
  const auto file = TensorFile::open(folder / "x" / "t.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  ASSERT_EQ(file.entries().size(), 3u);
  const auto& entry = file.entries().at("a \"quoted\"\n");
  EXPECT_EQ(entry.shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(entry.offset % 8, 0);
  std::array<std::byte, 24> bytes{};
  file.read(entry.offset, bytes);
  EXPECT_TRUE(std::ranges::equal(bytes, std::as_bytes(std::span(a))));
  std::array<int8_t, 3> got{};
  file.read(file.entries().at("b").offset, std::as_writable_bytes(std::span(got)));
  EXPECT_EQ(got[2], 9);
  EXPECT_EQ(file.entries().at("none").bytes, 0);
}

TEST(Safetensors, AcceptsMisalignedTensorsAndEmptyFiles) {
  const TemporaryFolder folder;
  EXPECT_EQ(open_error(folder, file_of("{}", 0)), "no error");
  const auto header = "{" + tensor("a", "U8", "[1]", "[0,1]") + "," + tensor("b", "F32", "[]", "[1,5]") + "}";
  EXPECT_EQ(open_error(folder, file_of(header, 5)), "no error");
}

// What the reference library reads too: no metadata, and fields that it does not know, whatever they hold.
TEST(Safetensors, IgnoresNoMetadataAndUnknownFields) {
  const TemporaryFolder folder;
  const auto path = folder / "a.safetensors";
  for (const char* extra :
       {R"("x")", "3", "-1.5e300", "null", "true", "[]", "{}", R"([1,[2,{"shape":[]}],"a"])",
        R"({"dtype":"F16","data_offsets":[0,1],"deep":{"shape":[[[]]]}})"}) {
    const auto header = str(R"({"__metadata__":null,"w":{"extra":)", extra, R"(,"dtype":"F32","more":)",
                            extra, R"(,"shape":[2],"data_offsets":[0,8],"last":)", extra,
                            R"(},"v":{"shape":[1],"data_offsets":[8,9],"dtype":"U8"}})");
    ASSERT_EQ(open_error(folder, file_of(header, 9)), "no error") << header;
    const auto file = TensorFile::open(path);
    EXPECT_TRUE(file.metadata().empty());
    ASSERT_EQ(file.entries().size(), 2u);
    EXPECT_EQ(file.entries().at("w").shape, (std::vector<int64_t>{2}));
    EXPECT_EQ(file.entries().at("w").bytes, 8);
    EXPECT_EQ(file.entries().at("v").dtype, DType::kU8);
  }
}

struct Hostile {
  const char* name;
  std::string header;
  size_t data_bytes;
  const char* message;
};

TEST(Safetensors, RefusesHostileHeaders) {
  const TemporaryFolder folder;
  const std::string good = tensor("w", "F32", "[2]", "[0,8]");
  const std::string nested(200000, '[');
  const Hostile table[] = {
      {"not JSON", "{\"w\":", 8, "not JSON"},
      {"empty", "", 8, "not a JSON object"},
      {"list", "[1]", 8, "not a JSON object"},
      {"trailing", "{" + good + "} x", 8, "not JSON"},
      {"deep", "{\"w\":{\"shape\":" + nested, 0, "unexpected a list"},
      {"deep objects", "{\"w\":{\"dtype\":{\"a\":1}}}", 0, "unexpected an object"},
      {"not UTF-8", "{\"\xff\xfe\":{}}", 0, "not JSON"},
      {"tensor is a number", "{\"w\":3}", 0, "unexpected a number"},
      {"tensor is null", "{\"w\":null}", 0, "unexpected null"},
      {"duplicate tensor", "{" + good + "," + good + "}", 8, "names \"w\" twice"},
      {"duplicate field", R"({"w":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8,
       "twice"},
      {"duplicate metadata", R"({"__metadata__":{},"__metadata__":{}})", 0, "twice"},
      {"metadata number", R"({"__metadata__":{"a":1}})", 0, "unexpected a number"},
      {"metadata list", R"({"__metadata__":[]})", 0, "unexpected a list"},
      {"unknown field instead of shape", R"({"w":{"dtype":"F32","shapes":[2],"data_offsets":[0,8]}})", 8,
       "lacks"},
      {"null as a shape", R"({"w":{"dtype":"F32","shape":null,"data_offsets":[0,8]}})", 8, "unexpected null"},
      {"null as metadata's value", R"({"__metadata__":{"a":null}})", 0, "unexpected null"},
      {"lacks shape", R"({"w":{"dtype":"F32","data_offsets":[0,8]}})", 8, "lacks"},
      {"bad type", "{" + tensor("w", "F31", "[2]", "[0,8]") + "}", 8, "\"F31\" is not supported"},
      {"negative shape", "{" + tensor("w", "F32", "[-2]", "[0,8]") + "}", 8, "-2 is negative"},
      {"fraction", "{" + tensor("w", "F32", "[2.5]", "[0,8]") + "}", 8, "not a whole number"},
      {"huge number", "{" + tensor("w", "F32", "[99999999999999999999]", "[0,8]") + "}", 8,
       "not a whole number"},
      {"above 63 bits", "{" + tensor("w", "F32", "[18446744073709551615]", "[0,8]") + "}", 8, "too large"},
      {"overflow", "{" + tensor("w", "F32", "[4611686018427387904,4]", "[0,8]") + "}", 8, "overflows"},
      {"overflow to zero", "{" + tensor("w", "F32", "[4294967296,4294967296]", "[0,0]") + "}", 0,
       "overflows"},
      {"shape against offsets", "{" + tensor("w", "F32", "[3]", "[0,8]") + "}", 8, "needs 12 bytes"},
      {"offsets reversed", "{" + tensor("w", "F32", "[2]", "[8,0]") + "}", 8, "data_offsets must be"},
      {"one offset", "{" + tensor("w", "F32", "[2]", "[8]") + "}", 8, "data_offsets must be"},
      {"truncated", "{" + good + "}", 7, "promises 8 bytes of tensors, the file has 7; download it again"},
      {"overlap", "{" + good + "," + tensor("v", "F32", "[2]", "[4,12]") + "}", 12, "inside another tensor"},
      {"same place", "{" + good + "," + tensor("v", "F32", "[2]", "[0,8]") + "}", 8, "inside another tensor"},
      {"hole", "{" + good + "," + tensor("v", "F32", "[2]", "[12,20]") + "}", 20, "behind a hole"},
      {"hole at the start", "{" + tensor("w", "F32", "[2]", "[4,12]") + "}", 12, "behind a hole"},
      {"rest", "{" + good + "}", 9, "1 bytes at the end belong to no tensor"},
      {"many dims",
       "{" +
           tensor("w", "F32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]",
                  "[0,4]") +
           "}",
       4, "more than 32"},
  };
  for (const auto& row : table) {
    const auto message = open_error(folder, file_of(row.header, row.data_bytes));
    EXPECT_THAT(message, HasSubstr(row.message)) << row.name;
    EXPECT_THAT(message, HasSubstr("a.safetensors")) << row.name;
    EXPECT_LT(message.size(), 600u) << row.name;
  }
}

TEST(Safetensors, RefusesLyingLengthsAndOtherFiles) {
  const TemporaryFolder folder;
  const auto with_length = [](uint64_t n) {
    std::string out(8, '\0');
    std::memcpy(out.data(), &n, 8);
    return out + "{}";
  };
  EXPECT_THAT(open_error(folder, ""), HasSubstr("0 bytes"));
  EXPECT_THAT(open_error(folder, with_length(3)), HasSubstr("truncated"));
  EXPECT_THAT(open_error(folder, with_length(100'000'001)), HasSubstr("more than 100000000"));
  EXPECT_THAT(open_error(folder, with_length(~0ull)), HasSubstr("more than 100000000"));
  EXPECT_THAT(open_error(folder, "version https://git-lfs.github.com/spec/v1\n"),
              HasSubstr("Git LFS pointer"));
  EXPECT_THAT(open_error(folder, "<!doctype html><html></html>"), HasSubstr("web page"));
  EXPECT_THAT(open_error(folder, std::string("PK\3\4 zip zip zip")), HasSubstr("pickle"));
  const auto open = [](const std::filesystem::path& p) {
    return message_of(Kind::kCheckpoint, [&] { TensorFile::open(p); });
  };
  EXPECT_THAT(open(folder / "absent"), HasSubstr("No such file"));
  EXPECT_THAT(open(folder.path()), HasSubstr("regular file"));
}

TEST(Safetensors, NamesAreShownWithoutControlCharacters) {
  const TemporaryFolder folder;
  const auto header = "{" + tensor("\\u001b[2J" + std::string(5000, 'n'), "F31", "[]", "[0,4]") + "}";
  const auto message = open_error(folder, file_of(header, 4));
  EXPECT_EQ(message.find('\x1b'), std::string::npos);
  EXPECT_LT(message.size(), 600u);
}

// Damages good headers at random: each either parses or throws Error. A longer run with other seeds:
// --gtest_shuffle --gtest_repeat=1000.
TEST(Safetensors, SurvivesRandomDamage) {
  const std::string good = R"({"__metadata__":{"format":"pt"},)" +
                           tensor("a.weight", "BF16", "[2,3]", "[0,12]") + "," +
                           tensor("b", "F8_E4M3", "[4]", "[12,16]") + "}";
  const std::string_view spice = "{}[]\",:0123456789-.eE\\uF32nul \xff\x01";
  std::mt19937 random(static_cast<unsigned>(7 + ::testing::UnitTest::GetInstance()->random_seed()));
  int accepted = 0;
  for (int i = 0; i < 30000; ++i) {
    std::string header = good;
    for (auto n = random() % 4; n > 0; --n) {
      const auto at = random() % header.size();
      switch (random() % 4) {
        case 0:
          header[at] = spice[random() % spice.size()];
          break;
        case 1:
          header.erase(at, random() % 8);
          break;
        case 2:
          header.insert(at, 1, spice[random() % spice.size()]);
          break;
        default:
          header.insert(at, header.substr(random() % header.size(), random() % 40));
          break;
      }
      if (header.empty()) header = "{";
    }
    Entries entries;
    FileMetadata metadata;
    try {
      parse_header("f", header, 16, entries, metadata);
      ++accepted;
      int64_t total = 0;
      for (const auto& [name, e] : entries) total += e.bytes;
      EXPECT_EQ(total, 16) << header;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), Kind::kCheckpoint);
    }
  }
  EXPECT_GT(accepted, 1000);  // undamaged ones at least
  EXPECT_LT(accepted, 29000);
}

TEST(SafetensorsWriter, LeavesNothingBehindWhenNotFinished) {
  const TemporaryFolder folder;
  const TensorSpec p{"a", DType::kF32, {2}};
  {
    SafetensorsWriter writer(folder / "a.safetensors", std::span(&p, 1), {});
    writer.append(std::array<std::byte, 4>{});
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(SafetensorsWriter, RefusesWhatTheDiskCannotHold) {
  const TemporaryFolder folder;
  const TensorSpec p{"a", DType::kF32, {int64_t{1} << 58}};
  const auto act = [&] { SafetensorsWriter(folder / "a.safetensors", std::span(&p, 1), {}); };
  EXPECT_THAT(message_of(Kind::kCapacity, act), HasSubstr("free some space"));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ShardedWriter, CutsAtTheLimitAndWritesTheIndexLast) {
  const TemporaryFolder folder;
  const std::vector<TensorSpec> specs{
      {"a", DType::kU8, {6}}, {"b", DType::kU8, {5}}, {"c", DType::kU8, {20}}};
  ShardedWriter writer({folder.path(), "model", 11}, specs);
  EXPECT_EQ(writer.shards(), 2);
  const std::vector<std::byte> bytes(31);
  writer.append(std::span(bytes).first(20));
  EXPECT_TRUE(std::filesystem::exists(folder / "model-00001-of-00002.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(folder / "model.safetensors.index.json"));
  writer.append(std::span(bytes).subspan(20));
  writer.finish();
  EXPECT_THAT(read_file(folder / "model.safetensors.index.json"),
              HasSubstr(R"("c": "model-00002-of-00002.safetensors")"));
  EXPECT_EQ(TensorFile::open(folder / "model-00001-of-00002.safetensors").entries().size(), 2u);
}

}  // namespace
}  // namespace atelier::weights
