#include "server/access.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "base/scratch.h"

namespace atelier::server {
namespace {

http::IncomingRequest request(http::HeaderLines headers) {
  http::IncomingRequest r;
  r.headers = std::move(headers);
  return r;
}

TEST(KeyRing_KnowsItsKeys, AndNoOthers) {
  KeyRing ring;
  ring.add("alice:0123456789abcdef", "flag");
  ring.add("fedcba9876543210", "flag");
  EXPECT_EQ(ring.owner_of("0123456789abcdef"), "alice");
  EXPECT_EQ(ring.owner_of("fedcba9876543210"), "key2");
  EXPECT_FALSE(ring.owner_of("0123456789abcdeF"));
  EXPECT_FALSE(ring.owner_of(""));
  EXPECT_NE(message_of(Kind::kUsage, [&] { ring.add("short", "flag"); }).find("at least 16"),
            std::string::npos);
  EXPECT_NE(message_of(Kind::kUsage, [&] { ring.add("alice:aaaaaaaaaaaaaaaaaa", "flag"); }).find("alice"),
            std::string::npos);
}

TEST(KeyRing_AFileThatOthersMayRead, IsRefused) {
  const Scratch scratch;
  const auto file = scratch.write("keys", "# mine\nalice:0123456789abcdef\n\n");
  ::chmod(file.c_str(), 0644);
  KeyRing ring;
  EXPECT_NE(message_of(Kind::kUsage, [&] { ring.add_file(file); }).find("chmod 600"), std::string::npos);
  ::chmod(file.c_str(), 0600);
  ring.add_file(file);
  EXPECT_EQ(ring.owner_of("0123456789abcdef"), "alice");
}

TEST(Access_BeyondLoopback, NeedsAKeyOrTls) {
  for (const char* host : {"127.0.0.1", "localhost", "::1", "127.9.9.9"}) check_exposure({.host = host});
  for (const char* host : {"0.0.0.0", "::", "192.168.1.7", "example.org"}) {
    EXPECT_NE(message_of(Kind::kUsage, [&] { check_exposure({.host = host}); }).find("--api_key_file"),
              std::string::npos)
        << host;
    check_exposure({.host = host, .is_secure = true});
    AccessRules rules{.host = host};
    rules.keys.add("0123456789abcdef", "flag");
    check_exposure(rules);
  }
}

TEST(Access_NamesThatAPageMayHaveBound, AreRefused) {
  const AccessRules rules{.host = "127.0.0.1", .port = 8000, .allowed_hosts = {"draw.example"}};
  for (const char* good :
       {"127.0.0.1:8000", "localhost:8000", "[::1]:8000", "draw.example", "DRAW.example:1"})
    EXPECT_EQ(check_origin(rules, request({{"Host", good}})).status, 0) << good;
  for (const char* bad : {"evil.example", "127.0.0.1.evil.example", "", "localhost.evil"})
    EXPECT_EQ(check_origin(rules, request({{"Host", bad}})).status, 421) << bad;
  EXPECT_EQ(check_origin(rules, request({})).status, 421);
}

TEST(Access_TwoNames, AreRefused) {
  const AccessRules rules{.host = "127.0.0.1"};
  EXPECT_EQ(check_origin(rules, request({{"Host", "localhost"}, {"host", "evil.example"}})).status, 400);
}

TEST(Access_AddressesThatNobodyCanCallBy, AreRefusedAtTheStart) {
  for (const char* good : {"https://a.example", "http://a.example:8080", "http://[::1]:8000"})
    check_origins({good});
  for (const char* bad : {"a.example", "https://a.example/", "https://a.example/page", "*", "null", "",
                          "https://", "https://a b.example", "ftp://a.example"})
    EXPECT_NE(message_of(Kind::kUsage, [&] { check_origins({bad}); }).find("cors_origins"), std::string::npos)
        << bad;
  for (const char* good : {"", "https://a.example", "http://a.example:80/draw/"}) check_public_url(good);
  for (const char* bad : {"a.example", "/v1", "ftp://a.example", "https://", "https://a.example/?x=1"})
    EXPECT_NE(message_of(Kind::kUsage, [&] { check_public_url(bad); }).find("public_url"), std::string::npos)
        << bad;
}

// A name that is empty is nobody's, whatever the server listens on.
TEST(Access_RequestsWithoutAName, AreRefused) {
  for (const char* host : {"::1", "::", "127.0.0.1", "[::1]"}) {
    const AccessRules rules{.host = host, .allowed_hosts = {""}};
    EXPECT_EQ(check_origin(rules, request({})).status, 421) << host;
    EXPECT_EQ(check_origin(rules, request({{"Origin", "http://x.example"}})).status, 421) << host;
    EXPECT_EQ(check_origin(rules, request({{"Host", ":80"}})).status, 421) << host;
    EXPECT_EQ(check_origin(rules, request({{"Host", "[::1]:8000"}})).status, 0) << host;
  }
}

TEST(Access_PagesOfElsewhere, AreRefusedUnlessAllowed) {
  const AccessRules rules{.host = "127.0.0.1", .cors_origins = {"https://app.example"}};
  const auto ask = [&](const char* origin) {
    return check_origin(rules, request({{"Host", "localhost:8000"}, {"Origin", origin}}));
  };
  EXPECT_EQ(ask("http://localhost:8000").status, 0);
  EXPECT_EQ(ask("http://localhost:8000").cors_origin, "");
  EXPECT_EQ(ask("https://app.example").cors_origin, "https://app.example");
  for (const char* bad : {"http://localhost:9000", "https://localhost:8000", "http://evil.example", "null"})
    EXPECT_EQ(ask(bad).status, 403) << bad;
}

TEST(Access_TheKeyStands, InOneOfTwoHeaders) {
  EXPECT_EQ(key_in(request({{"Authorization", "Bearer  abc "}})), "abc");
  EXPECT_EQ(key_in(request({{"X-API-Key", "abc"}})), "abc");
  EXPECT_EQ(key_in(request({{"Authorization", "Basic abc"}, {"X-Api-Key", "abc"}})), "");
}

}  // namespace
}  // namespace atelier::server
