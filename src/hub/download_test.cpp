#include "hub/download.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "base/json.h"
#include "base/testing.h"
#include "hub/fake_server.h"

namespace atelier::hub {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Reply = FakeServer::Reply;
using ReceivedRequest = FakeServer::ReceivedRequest;
namespace fs = std::filesystem;

constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";
constexpr const char* kToken = "hf_secretsecret";
constexpr const char* kId = "org/model";

std::string digest(const std::string& bytes, const EVP_MD* kind) {
  unsigned char raw[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(bytes.data(), bytes.size(), raw, &size, kind, nullptr);
  std::string out;
  for (unsigned i = 0; i < size; ++i) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", raw[i]);
    out += two;
  }
  return out;
}

// A hub with one repository, whose big files are served by another host.
class DownloadTest : public ::testing::Test {
 protected:
  DownloadTest()
      : cdn_([this](const ReceivedRequest& r) { return serve_big(r); }),
        hub_([this](const ReceivedRequest& r) { return serve(r); }) {
    big_.resize(300'000);
    for (size_t i = 0; i < big_.size(); ++i) big_[i] = static_cast<char>(i * 7 + i / 251);
    files_["model_index.json"] =
        R"({"_class_name":"FluxPipeline","transformer":["diffusers","Flux"],"vae":["diffusers","Vae"],
            "safety_checker":["x","y"],"image_encoder":[null,null]})";
    files_["vae/config.json"] = "{}";
    files_["vae/diffusion_pytorch_model.safetensors"] = "tiny";
    files_["transformer/config.json"] = "{ }";
    for (const char* unwanted :
         {"flux1.safetensors", "README.md", "vae/diffusion_pytorch_model.bin",
          "vae/diffusion_pytorch_model.fp16.safetensors", "safety_checker/model.safetensors"}) {
      files_[unwanted] = "unwanted";
    }
  }

  Reply serve(const ReceivedRequest& r) {
    if (const int status = failures_ > 0 ? (--failures_, failure_.load()) : 0; status != 0) {
      return {status, {{"Retry-After", "0"}}, "go away"};
    }
    if (r.path.starts_with("/api/models/")) {
      if (r.path != std::string("/api/models/") + kId + "/revision/main") return {404, {}, ""};
      Json list{{"sha", kCommit}, {"siblings", Json::array()}};
      for (const auto& [name, _] : files_) list["siblings"].push_back({{"rfilename", name}});
      list["siblings"].push_back({{"rfilename", big_name_}});
      return {200, {}, list.dump()};
    }
    const std::string base = std::string("/") + kId + "/resolve/" + kCommit + "/";
    if (!r.path.starts_with(base)) return {404, {}, ""};
    const std::string name = r.path.substr(base.size());
    if (name == big_name_) {
      return {302,
              {{"Location", cdn_.url() + "/blob?signature=x"},
               {"X-Linked-Etag", "\"" + digest(big_, EVP_sha256()) + "\""},
               {"X-Linked-Size", std::to_string(announced_size_ > 0 ? announced_size_.load()
                                                                    : static_cast<int64_t>(big_.size()))}},
              ""};
    }
    const auto at = files_.find(name);
    if (at == files_.end()) return {404, {}, ""};
    const std::string blob = str("blob ", at->second.size(), '\0') + at->second;
    return {200, {{"ETag", "W/\"" + digest(blob, EVP_sha1()) + "\""}}, at->second};
  }

  Reply serve_big(const ReceivedRequest& r) {
    std::string bytes = big_;
    if (is_corrupt_) bytes[1000] ^= 1;
    const auto range = r.headers.find("range");
    int64_t cut = -1;
    if (!cuts_.empty()) {
      cut = cuts_.back();
      cuts_.pop_back();
    }
    if (range == r.headers.end() || !does_ranges_) return {200, {}, bytes, cut};
    const auto from = static_cast<size_t>(std::stoll(range->second.substr(6)));
    if (from >= bytes.size()) return {416, {}, ""};
    return {206,
            {{"Content-Range", str("bytes ", from, "-", bytes.size() - 1, "/", bytes.size())}},
            bytes.substr(from),
            cut};
  }

  DownloadOptions options() {
    DownloadOptions o;
    o.endpoint = hub_.url() + "/";
    o.token = kToken;
    o.cache = folder_.path() / "hub";
    o.first_wait_ms = 1;
    o.tries = 3;
    return o;
  }
  fs::path repository() const { return folder_.path() / "hub" / "models--org--model"; }
  fs::path big_file() const { return repository() / "snapshots" / kCommit / big_name_; }
  fs::path big_blob() const { return repository() / "blobs" / digest(big_, EVP_sha256()); }
  std::string error(Kind kind) {
    auto message = message_of(kind, [&] { download(kId, options()); });
    EXPECT_THAT(message, Not(HasSubstr(kToken)));
    EXPECT_THAT(message, Not(HasSubstr("signature")));
    return message;
  }

  TemporaryFolder folder_;
  std::map<std::string, std::string> files_;
  std::string big_, big_name_ = "transformer/diffusion_pytorch_model.safetensors";
  std::atomic<int64_t> announced_size_ = 0;
  std::atomic<bool> is_corrupt_ = false, does_ranges_ = true;
  std::atomic<int> failures_ = 0, failure_ = 503;
  std::vector<int64_t> cuts_;  // last first; set before the download starts
  FakeServer cdn_, hub_;
};

TEST_F(DownloadTest, FetchesWhatIsNeededIntoTheCacheLayout) {
  int64_t last = 0, total = 0;
  auto o = options();
  o.progress = [&](const DownloadProgress& p) {
    EXPECT_GE(p.done, 0);
    last = p.done;
    total = p.total;
  };
  const auto source = download(kId, o);
  EXPECT_EQ(source.revision, kCommit);
  EXPECT_EQ(read_file(big_file()), big_);
  EXPECT_TRUE(fs::is_symlink(big_file()));
  EXPECT_TRUE(fs::read_symlink(big_file()).is_relative());
  EXPECT_EQ(read_file(source.folder / "vae" / "diffusion_pytorch_model.safetensors"), "tiny");
  EXPECT_EQ(read_file(repository() / "refs" / "main"), kCommit);
  for (const char* unwanted : {"flux1.safetensors", "vae/diffusion_pytorch_model.bin", "safety_checker",
                               "vae/diffusion_pytorch_model.fp16.safetensors"}) {
    EXPECT_FALSE(fs::exists(source.folder / unwanted)) << unwanted;
  }
  EXPECT_EQ(last, total);
  EXPECT_GT(total, static_cast<int64_t>(big_.size()));
  for (const auto& item : fs::directory_iterator(repository() / "blobs")) {
    EXPECT_NE(item.path().extension(), ".incomplete");
  }
  const auto found = resolve(kId, {{}, o.cache, ""});
  EXPECT_EQ(fs::canonical(found.folder), fs::canonical(source.folder));
  EXPECT_EQ(found.how, Provenance::kCache);
}

TEST_F(DownloadTest, FetchesNothingTwice) {
  download(kId, options());
  const auto before = cdn_.requests().size();
  download(kId, options());
  EXPECT_EQ(cdn_.requests().size(), before);
}

TEST_F(DownloadTest, SendsTheTokenToTheHubOnly) {
  download(kId, options());
  ASSERT_FALSE(cdn_.requests().empty());
  for (const auto& r : cdn_.requests()) EXPECT_FALSE(r.headers.contains("authorization"));
  for (const auto& r : hub_.requests())
    EXPECT_EQ(r.headers.at("authorization"), std::string("Bearer ") + kToken);
}

TEST_F(DownloadTest, GoesOnWhereTheConnectionBroke) {
  cuts_ = {100'000, 150'000};
  download(kId, options());
  EXPECT_EQ(read_file(big_file()), big_);
  const auto requests = cdn_.requests();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[1].headers.at("range"), "bytes=150000-");
  EXPECT_EQ(requests[2].headers.at("range"), "bytes=250000-");
}

TEST_F(DownloadTest, GoesOnFromWhatAnEarlierRunLeft) {
  write_file_atomically(big_blob().string() + ".incomplete", big_.substr(0, 123'456));
  download(kId, options());
  EXPECT_EQ(read_file(big_file()), big_);
  EXPECT_EQ(cdn_.requests().at(0).headers.at("range"), "bytes=123456-");
}

TEST_F(DownloadTest, StartsAgainWhereTheServerKnowsNoRanges) {
  does_ranges_ = false;
  write_file_atomically(big_blob().string() + ".incomplete", std::string(1000, 'z'));
  download(kId, options());
  EXPECT_EQ(read_file(big_file()), big_);
}

TEST_F(DownloadTest, DamagedRestOfAnEarlierRunIsReplaced) {
  write_file_atomically(big_blob().string() + ".incomplete", std::string(1000, 'z'));
  download(kId, options());
  EXPECT_EQ(read_file(big_file()), big_);
}

TEST_F(DownloadTest, RefusesWrongChecksumsAndKeepsNothing) {
  is_corrupt_ = true;
  EXPECT_THAT(error(Kind::kCheckpoint), HasSubstr("checksum"));
  EXPECT_FALSE(fs::exists(big_blob()));
  EXPECT_FALSE(fs::exists(big_file()));
  EXPECT_EQ(fs::file_size(big_blob().string() + ".incomplete"), 0u);
  is_corrupt_ = false;
  download(kId, options());
  EXPECT_EQ(read_file(big_file()), big_);
}

TEST_F(DownloadTest, ChecksSmallFilesToo) {
  download(kId, options());
  const auto path = fs::canonical(repository() / "snapshots" / kCommit / "vae/config.json");
  EXPECT_EQ(path.filename(), digest(std::string("blob 2\0{}", 9), EVP_sha1()));
}

TEST_F(DownloadTest, RefusesMoreThanAnnounced) {
  announced_size_ = 1000;
  EXPECT_THAT(error(Kind::kCheckpoint), HasSubstr("longer than the 1000 bytes"));
}

TEST_F(DownloadTest, RefusesBeforeTheFirstBigFileWhenTheDiskIsTooSmall) {
  announced_size_ = int64_t{1} << 60;
  EXPECT_THAT(error(Kind::kCapacity), HasSubstr("free some space"));
  EXPECT_TRUE(cdn_.requests().empty());
}

TEST_F(DownloadTest, TriesAgainWhenTheServerIsBusy) {
  for (const int status : {429, 503}) {
    failure_ = status;
    failures_ = 2;
    download(kId, options());
  }
  failures_ = 1000;
  EXPECT_THAT(error(Kind::kPeer), HasSubstr("503"));
  failure_ = 429;
  EXPECT_THAT(error(Kind::kPeer), HasSubstr("slow down"));
}

TEST_F(DownloadTest, SaysWhatToDoWhenRefused) {
  failures_ = 1000;
  failure_ = 401;
  EXPECT_THAT(error(Kind::kUsage), HasSubstr("HF_TOKEN is not valid"));
  failure_ = 403;
  EXPECT_THAT(error(Kind::kUsage), HasSubstr("accept the licence at " + hub_.url() + "/org/model"));
  auto o = options();
  o.token.clear();
  failure_ = 401;
  EXPECT_THAT(message_of(Kind::kUsage, [&] { download(kId, o); }), HasSubstr("set HF_TOKEN"));
  const auto asked = hub_.requests().size();
  EXPECT_EQ(asked, 3u);  // none was tried again
  failures_ = 0;
  o.revision = "v9";
  EXPECT_THAT(message_of(Kind::kUsage, [&] { download(kId, o); }), HasSubstr("\"v9\""));
  EXPECT_THAT(message_of(Kind::kUsage, [&] { download("org/other", options()); }), HasSubstr("404"));
}

TEST_F(DownloadTest, CredentialsOfTheAddressAreNotShown) {
  auto o = options();
  o.endpoint.insert(std::string("http://").size(), "alice:secret@");
  for (const int status : {401, 403, 404, 500}) {
    failures_ = 1;
    failure_ = status;
    o.tries = 1;
    try {
      download(kId, o);
      ADD_FAILURE() << status;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), Not(HasSubstr("secret"))) << status;
      EXPECT_THAT(e.what(), HasSubstr("http://***@127.0.0.1")) << status;
    }
  }
}

TEST_F(DownloadTest, ARevisionIsOnePartOfTheAddress) {
  auto o = options();
  o.revision = "refs/pr/3";
  message_of(Kind::kUsage, [&] { download(kId, o); });
  EXPECT_EQ(hub_.requests().back().path, std::string("/api/models/") + kId + "/revision/refs%2Fpr%2F3");
}

TEST_F(DownloadTest, RefusesFilesOutsideOfTheFolder) {
  for (const char* path : {"../evil", "/etc/evil", "transformer/../../evil", "a\\b", "a\nb"}) {
    files_["x"] = "";
    auto node = files_.extract("x");
    node.key() = path;
    files_.insert(std::move(node));
    EXPECT_THAT(error(Kind::kCheckpoint), HasSubstr("outside of the folder")) << path;
    files_.erase(path);
  }
}

TEST_F(DownloadTest, RefusesRepositoriesThatAreNoDiffusersFolder) {
  files_.erase("model_index.json");
  EXPECT_THAT(error(Kind::kUsage), HasSubstr("no diffusers folder"));
}

TEST_F(DownloadTest, PicklesAloneAreNamed) {
  files_.erase("vae/diffusion_pytorch_model.safetensors");
  files_.erase("vae/diffusion_pytorch_model.fp16.safetensors");
  files_.erase("vae/config.json");
  EXPECT_THAT(error(Kind::kUsage), HasSubstr("vae (pickles are never loaded)"));
}

TEST_F(DownloadTest, StopsWhenAskedAndKeepsWhatItHas) {
  std::stop_source stop;
  auto o = options();
  o.progress = [&](const DownloadProgress& p) {
    if (p.file == big_name_) stop.request_stop();
  };
  message_of(Kind::kInterrupted, [&] { download(kId, o, stop.get_token()); });
  EXPECT_THAT(message_of(Kind::kInterrupted, [&] { download(kId, o, stop.get_token()); }),
              HasSubstr("run again"));
  EXPECT_FALSE(fs::exists(repository() / "refs" / "main"));
  download(kId, options());
  EXPECT_EQ(read_file(big_file()), big_);
}

TEST(Download, NamesTheServerThatIsNotThere) {
  const TemporaryFolder folder;
  DownloadOptions o;
  o.endpoint = "http://127.0.0.1:1";
  o.cache = folder.path();
  o.tries = 2;
  o.first_wait_ms = 1;
  EXPECT_THAT(message_of(Kind::kPeer, [&] { download(kId, o); }), HasSubstr("http://127.0.0.1:1"));
}

TEST(Download, RefusesRedirectsInACircle) {
  const TemporaryFolder folder;
  const FakeServer server([](const ReceivedRequest& r) { return Reply{302, {{"Location", r.path}}, ""}; });
  DownloadOptions o;
  o.endpoint = server.url();
  o.cache = folder.path();
  o.first_wait_ms = 1;
  EXPECT_THAT(message_of(Kind::kCheckpoint, [&] { download(kId, o); }), HasSubstr("circle"));
}

TEST(Download, ChoosesPlainWeightsOrOneVariant) {
  EXPECT_THAT(
      needed_files({"t/config.json", "t/model.safetensors", "t/model.fp16.safetensors", "t/pytorch_model.bin",
                    "t/pytorch_model.bin.index.json", "t/flax_model.msgpack", "t/sub/model.safetensors",
                    "u/config.json", "t/tokenizer.json", "t/spiece.model", "t/merges.txt", "t/model.onnx"},
                   {"t"}),
      ElementsAre("t/config.json", "t/model.safetensors", "t/tokenizer.json", "t/spiece.model",
                  "t/merges.txt"));
  EXPECT_THAT(
      needed_files({"t/model.fp16-00001-of-00002.safetensors", "t/model.fp16-00002-of-00002.safetensors",
                    "t/model.safetensors.index.fp16.json", "t/model.non_ema.safetensors"},
                   {"t"}),
      ElementsAre("t/model.fp16-00001-of-00002.safetensors", "t/model.fp16-00002-of-00002.safetensors",
                  "t/model.safetensors.index.fp16.json"));
  EXPECT_THAT(needed_files({"t/model-00001-of-00001.safetensors", "t/model.safetensors",
                            "t/model.safetensors.index.json"},
                           {"t"}),
              ElementsAre("t/model-00001-of-00001.safetensors", "t/model.safetensors.index.json"));
}

}  // namespace
}  // namespace atelier::hub
