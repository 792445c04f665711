#include "server/router.h"

#include <gtest/gtest.h>

#include "http/message.h"

namespace atelier::server {
namespace {

Router router() {
  Router r;
  for (const auto& [method, pattern] :
       std::vector<std::pair<const char*, const char*>>{{"GET", "/"},
                                                        {"GET", "/v1/models"},
                                                        {"GET", "/v1/models/{id...}"},
                                                        {"GET", "/v1/jobs/{id}"},
                                                        {"DELETE", "/v1/jobs/{id}"},
                                                        {"GET", "/v1/jobs/{id}/images/{index}"}})
    r.add({.method = method, .pattern = pattern});
  return r;
}

std::string found(const std::string& method, const std::string& path) {
  static const Router r = router();
  const auto match = r.find(method, path);
  if (!match.route) return match.allowed.empty() ? "none" : "only " + match.allowed;
  std::string out = match.route->pattern;
  for (const auto& [name, value] : match.values) out += " " + name + "=" + value;
  return out;
}

TEST(Router_Paths, FindTheirPatterns) {
  EXPECT_EQ(found("GET", "/"), "/");
  EXPECT_EQ(found("HEAD", "/v1/models"), "/v1/models");
  EXPECT_EQ(found("GET", "/v1/models/black-forest-labs/FLUX.1-schnell"),
            "/v1/models/{id...} id=black-forest-labs/FLUX.1-schnell");
  EXPECT_EQ(found("GET", "/v1/models/black-forest-labs%2FFLUX.1-schnell"),
            "/v1/models/{id...} id=black-forest-labs/FLUX.1-schnell");
  EXPECT_EQ(found("GET", "/v1/jobs/a%2Fb"), "/v1/jobs/{id} id=a/b");
  EXPECT_EQ(found("GET", "/v1/jobs/a/images/0"), "/v1/jobs/{id}/images/{index} id=a index=0");
}

TEST(Router_OtherMethodsAndPaths, AreToldApart) {
  EXPECT_EQ(found("POST", "/v1/jobs/a"), "only GET, DELETE");
  for (const char* path : {"", "v1/models", "/v1", "/v1/models/", "/v1/jobs/", "/v1/jobs//images/0",
                           "/v1/jobs/%00", "/v1/jobs/%zz", "//", "/v1/models2"})
    EXPECT_EQ(found("GET", path), "none") << path;
}

TEST(Query_Fields, AreDecoded) {
  const auto fields = http::query_fields("a=1&b=x%20y+z&&c&a=2");
  ASSERT_TRUE(fields);
  EXPECT_EQ(fields->at("a"), "2");
  EXPECT_EQ(fields->at("b"), "x y z");
  EXPECT_EQ(fields->at("c"), "");
  EXPECT_FALSE(http::query_fields("a=%f"));
  EXPECT_FALSE(http::query_fields("a=%00"));
}

}  // namespace
}  // namespace atelier::server
