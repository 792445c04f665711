#include "base/printable.h"

#include <gtest/gtest.h>

#include "base/quote.h"

namespace atelier {
namespace {

TEST(Printable, EscapeCodesStayText) {
  EXPECT_EQ(printable("a\x1b[31mred\x07\r\x7f"), "a\\x1b[31mred\\x07\\x0d\\x7f");
  EXPECT_EQ(printable("two\nlines\tand 猫 é 😀"), "two\nlines\tand 猫 é 😀");
  EXPECT_EQ(printable("\xC2\x9B"
                      "31m"),
            "\\xc2\\x9b31m");  // CSI in one character
  EXPECT_EQ(printable("\xFFx\xE7\x8C"), "\\xffx\\xe7\\x8c");
  EXPECT_EQ(printable(""), "");
}

TEST(ShellWord, SaysWhatAShellReadsBack) {
  EXPECT_EQ(shell_word("data=2"), "data=2");
  EXPECT_EQ(shell_word(""), "''");
  EXPECT_EQ(shell_word("two words, it's 猫\\"), "'two words, it'\\''s 猫\\'");
}

TEST(ShellWord, HoldsNoControlCharacters) {
  EXPECT_EQ(shell_word("\x1b[31mred"), "$'\\x1b[31mred'");
  EXPECT_EQ(shell_word("it's \\ \xff"), "$'it\\'s \\\\ \\xff'");
}

}  // namespace
}  // namespace atelier
