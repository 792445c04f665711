// Character references of HTML, against what Python's html.unescape gives, and the cleaning of prompts
// that needs it.
#include "text/html.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "text/cleaning.h"

namespace atelier::text {
namespace {

TEST(Html, ReferencesBecomeWhatPythonMakesOfThem) {
  const std::pair<const char*, const char*> cases[] = {
      {"&amp;amp;", "&amp;"},
      {"&lt;static&gt;", "<static>"},
      {"&notit;", "\u00acit;"},
      {"&notin;", "\u2209"},
      {"&notinE", "\u00acinE"},
      {"&copy2", "\u00a92"},
      {"&#38;#x41;", "&#x41;"},
      {"&#x26;", "&"},
      {"&#X26", "&"},
      {"&#150;", "\u2013"},
      {"&#0;", "\ufffd"},
      {"&#xD800;", "\ufffd"},
      {"&#1114112;", "\ufffd"},
      {"&#11;", ""},
      {"&#65534;", ""},
      {"&AMP", "&"},
      {"&ampx", "&x"},
      {"&CounterClockwiseContourIntegral;", "\u2233"},
      {"&fjlig;", "fj"},
      {"a&eacute;b&eacute b&Eacut", "a\u00e9b\u00e9 b&Eacut"},
      {"&#99999999999999999999;", "\ufffd"},
      {"&lt\u65e5\u672c", "<\u65e5\u672c"},
      {"&NotEqualTilde;", "\u2242\u0338"},
      {"&Aacute;&zwnj;", "\u00c1\u200c"},
  };
  for (const auto& [text, wanted] : cases) EXPECT_EQ(html_unescaped(text), wanted) << text;
}

TEST(Html, WhatIsNoReferenceStays) {
  for (const char* text : {"", "&", "x&", "&;", "&#;", "&#x;", "& amp;", "&\u65e5\u672c;", "no & yes",
                           "&abcdefghijklmnopqrstuvwxyzabcdefghijklmnop;"})
    EXPECT_EQ(html_unescaped(text), text);
}

TEST(Html, PromptsAreUnescapedTwiceAndTheirWhiteSpaceIsSingleBlanks) {
  EXPECT_EQ(unescaped("  A red &amp;amp;   fox\n\u3000asleep \t"), "A red & fox asleep");
  EXPECT_EQ(unescaped("&lt;static&gt;"), "<static>");
  EXPECT_EQ(unescaped("a&nbsp;&amp;nbsp;b"), "a b");
  EXPECT_EQ(unescaped(" \n "), "");
  EXPECT_EQ(unescaped("A\xff"), "A\ufffd");
}

}  // namespace
}  // namespace atelier::text
