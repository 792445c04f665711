#include "base/secrets.h"

#include <gtest/gtest.h>

#include "base/printable.h"

namespace atelier {
namespace {

TEST(Secrets, AUserOfAUrlIsHidden) {
  EXPECT_EQ(hide_secrets("from http://alice:secret@host:80/x: no"), "from http://***@host:80/x: no");
  EXPECT_EQ(hide_secrets("http://hf_token@host"), "http://***@host");
  EXPECT_EQ(hide_secrets("\"ftp://a:b@h\" and postgresql://u:p@h/d"),
            "\"ftp://***@h\" and postgresql://***@h/d");
  EXPECT_EQ(hide_secrets("http://alice:se@cret@host/"), "http://***@host/");
  EXPECT_EQ(hide_secrets("http://alice:se/cr?et#@host/x"), "http://***@host/x");
  EXPECT_EQ(hide_secrets("http://\x1b[31malice:secret@host"), "http://***@host");
}

TEST(Secrets, ParametersThatAreSecretAreHidden) {
  EXPECT_EQ(hide_secrets("https://h/x?a=1&token=abc&X-Amz-Signature=d&b=2#c"),
            "https://h/x?a=1&token=***&X-Amz-Signature=***&b=2#c");
  EXPECT_EQ(hide_secrets("https://h/x#access_token=abc&state=1"), "https://h/x#access_token=***&state=1");
  EXPECT_EQ(hide_secrets("https://h/x?jwt=abc#Bearer=d"), "https://h/x?jwt=***#Bearer=***");
  EXPECT_EQ(hide_secrets("https://h/?api_key=abc next ?token=shown"),
            "https://h/?api_key=*** next ?token=shown");
}

TEST(Secrets, OtherTextStays) {
  for (const char* text : {"", "://", "a://", "http://host/a@b", "http://host:80/a@b",
                           "https://host/x?revision=main", "user@host", "style.safetensors:0.5@transformer_2",
                           "a: b @ c", "https://h/x and a@b", "https://h?monkey=1"}) {
    EXPECT_EQ(hide_secrets(text), text);
  }
}

TEST(Secrets, AUrlWithoutASchemeIsOneToo) {
  EXPECT_EQ(hide_secrets_of_url("alice:secret@host:1/x"), "***@host:1/x");
  EXPECT_EQ(hide_secrets_of_url("ftp://alice:secret@host"), "ftp://***@host");
  EXPECT_EQ(hide_secrets_of_url("host/x?token=a"), "host/x?token=***");
}

TEST(Secrets, WhatIsPrintedHidesThem) {
  EXPECT_EQ(printable("at http://alice:secret@host\x07"), "at http://***@host\\x07");
}

}  // namespace
}  // namespace atelier
