// Forms cut at every byte, forms that are none, and limits.
#include "http/form.h"

#include <gtest/gtest.h>

#include "base/scratch.h"

namespace atelier::http {
namespace {

const std::string kForm =
    "--line\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na fox\r\n"
    "--line\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a \\\"b\\\".png\"\r\nContent-Type: "
    "image/png\r\n\r\n"
    "\x89PNG\r\n--lin\r\n\r\n--line\r\nContent-Disposition: form-data; name=empty\r\n\r\n\r\n--line--\r\n";

std::vector<FormPart> read(const std::string& text, size_t step, FormLimits limits = {}) {
  FormReader reader("line", limits);
  for (size_t at = 0; at < text.size(); at += step) reader.add(std::string_view(text).substr(at, step));
  return reader.finish();
}

TEST(Form_PartsAreTheSame, WhereverItIsCut) {
  for (size_t step = 1; step <= kForm.size(); ++step) {
    const auto parts = read(kForm, step);
    ASSERT_EQ(parts.size(), 3u) << step;
    EXPECT_EQ(parts[0].name, "prompt");
    EXPECT_EQ(parts[0].data, "a fox");
    EXPECT_EQ(parts[1].file_name, "a \"b\".png");
    EXPECT_EQ(parts[1].content_type, "image/png");
    EXPECT_EQ(parts[1].data, "\x89PNG\r\n--lin\r\n");
    EXPECT_EQ(parts[2].name, "empty");
    EXPECT_EQ(parts[2].data, "");
  }
}

TEST(Form_ThatIsBrokenOffIsRefused, AtEveryByte) {
  const size_t end = kForm.rfind("--");  // the last two dashes make it whole
  for (size_t size = 0; size < end + 2; ++size) EXPECT_THROW(read(kForm.substr(0, size), 7), Error) << size;
  EXPECT_EQ(read(kForm.substr(0, end + 2), 7).size(), 3u);
}

TEST(Form_LimitsAreNamed, EachByItself) {
  const auto message = [&](FormLimits limits) {
    return message_of(Kind::kUsage, [&] { read(kForm, 16, limits); });
  };
  EXPECT_NE(message({.parts = 2}).find("more than 2 parts"), std::string::npos);
  EXPECT_NE(message({.value_bytes = 4}).find("more than 4 bytes"), std::string::npos);
  EXPECT_NE(message({.file_bytes = 8}).find("more than 8 bytes"), std::string::npos);
  EXPECT_NE(message({.header_bytes = 30}).find("longer than 30 bytes"), std::string::npos);
}

TEST(Form_WhatIsNoFormIsRefused, ByName) {
  for (const char* text :
       {"hello", "--line\r\n\r\n\r\n--line--", "--lineX\r\n", "--line\r\nno colon\r\n\r\nx\r\n--line--",
        "--line\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\nx\r\n--line--"}) {
    EXPECT_THROW(read(text, 3), Error) << text;
  }
}

TEST(Form_Boundaries, AreReadFromTheContentType) {
  EXPECT_EQ(form_boundary("multipart/form-data; boundary=abc"), "abc");
  EXPECT_EQ(form_boundary("Multipart/Form-Data; charset=utf-8; boundary=\"a b\""), "a b");
  EXPECT_FALSE(form_boundary("multipart/form-data"));
  EXPECT_FALSE(form_boundary("multipart/mixed; boundary=abc"));
  EXPECT_FALSE(form_boundary("multipart/form-data; boundary=" + std::string(71, 'a')));
  EXPECT_FALSE(form_boundary("multipart/form-data; boundary=\"a\r\nb\""));
}

}  // namespace
}  // namespace atelier::http
