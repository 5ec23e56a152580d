// Text from files as people see it: on a terminal, in Markdown, in a shell.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "bash_words.h"
#include "spectralquant/core/error.h"
#include "spectralquant/core/markdown_text.h"
#include "spectralquant/core/printable.h"
#include "spectralquant/core/shell_word.h"
#include "spectralquant/core/utf8.h"

namespace spectralquant {
namespace {

using test::bash_words;
using test::Words;

TEST(Printable, LeavesTextOfAnyScriptAlone) {
  for (const std::string text : {"", "blk.0.ffn_down.weight", "Größe 語 한국어 עברית العربية 😀",
                                 "a\\x1b", "\u00a0\u00ad", "�"})
    EXPECT_EQ(printable(text), text);
}

TEST(Printable, ShowsWhatCommandsATerminal) {
  EXPECT_EQ(printable("a\x1b]0;owned\x07\x1b[2J"), "a\\x1b]0;owned\\x07\\x1b[2J");
  EXPECT_EQ(printable(std::string_view("\0\b\x7f", 3)), "\\x00\\x08\\u007f");
  EXPECT_EQ(printable("line\r\nnext\tcell"), "line\\r\\nnext\\tcell");
  EXPECT_EQ(printable("\xc2\x9b\x32J"), "\\u009b2J") << "CSI as one character of C1";
  EXPECT_EQ(printable("\u202egpj.exe\u202c \u2066x\u2069 \u200f \u061c"),
            "\\u202egpj.exe\\u202c \\u2066x\\u2069 \\u200f \\u061c");
  EXPECT_EQ(printable("a\u2028b\u2029c\ufffe"), "a\\u2028b\\u2029c\\ufffe");
}

TEST(Printable, ShowsBytesThatAreNoUtf8) {
  EXPECT_EQ(printable("caf\xe9"), "caf\\xe9");
  EXPECT_EQ(printable("\xc0\x9b\xed\xa0\x80\xf5"), "\\xc0\\x9b\\xed\\xa0\\x80\\xf5");
  EXPECT_EQ(printable("\xe2\x82"), "\\xe2\\x82") << "a sequence that is cut off";
}

TEST(Printable, KeepsBreaksWhereTextHasLines) {
  EXPECT_EQ(printable("a\n\tb\x1b\r\n", Breaks::kKept), "a\n\tb\\x1b\\r\n");
}

RC_GTEST_PROP(Printable, IsUtf8WithoutControlsWhateverGoesIn, (const std::string& bytes)) {
  const std::string shown = printable(bytes);
  for (std::size_t at = 0; at < shown.size(); at += utf8_sequence(shown.substr(at)))
    RC_ASSERT(utf8_sequence(shown.substr(at)) > 0);
  for (const char c : shown) RC_ASSERT(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
  RC_ASSERT(printable(shown) == shown);
}

TEST(Printable, IsCutBetweenCharacters) {
  EXPECT_EQ(beginning_of("語語", 6), "語語");
  EXPECT_EQ(beginning_of("語語", 5), "語");
  EXPECT_EQ(beginning_of("語語", 2), "");
}

TEST(Error, ItsTextsArePrintableAndOneLineEach) {
  const Error error = bad_input("tensor 'a\x1b[31m\n    fix: run this'", "b\u202e.gguf", "c\xff");
  EXPECT_STREQ(error.what(),
               "tensor 'a\\x1b[31m\\n    fix: run this'\n    at:  b\\u202e.gguf\n    fix: c\\xff");
  EXPECT_EQ(error.problem(), "tensor 'a\\x1b[31m\\n    fix: run this'");
  EXPECT_EQ(error.place(), "b\\u202e.gguf");
  EXPECT_EQ(error.fix(), "c\\xff");
}

TEST(Error, MessagesOfLibrariesBecomeOneLine) {
  EXPECT_EQ(without_backtrace("CUDA error: x\nPass y.\n\nException raised from z\nframe #0"),
            "CUDA error: x; Pass y.");
}

const std::vector<std::string> kHostile = {"plain.gguf",
                                           "Bob's $5 model (v2).gguf",
                                           "a b",
                                           "",
                                           "$HOME `id` $(id) ${x}",
                                           "x; touch owned",
                                           "a\nb",
                                           "a\n",
                                           "tab\there",
                                           "back\\slash\\",
                                           "\"double\"",
                                           "''",
                                           "'; touch owned; '",
                                           "~",
                                           "*",
                                           "?.gguf",
                                           "#x",
                                           "!x!",
                                           "{a,b}",
                                           "<in >out",
                                           "&",
                                           "a|b",
                                           "-n",
                                           "--help",
                                           "caf\xe9",
                                           "\x1b[31m1",
                                           "語",
                                           "\u202e1",
                                           "=x",
                                           "%1",
                                           "\x01"
                                           "7",
                                           "\\'"};

TEST(ShellWord, ArrivesInBashByteForByte) {
  std::string script;
  for (const auto& text : kHostile) script += "program " + shell_word(text) + "\n";
  const auto commands = bash_words(script);
  ASSERT_EQ(commands.size(), kHostile.size());
  for (std::size_t i = 0; i < commands.size(); ++i)
    EXPECT_EQ(commands[i], (Words{"program", kHostile[i]})) << shell_word(kHostile[i]);
}

TEST(ShellWord, CanBeShown) {
  for (const auto& text : kHostile) EXPECT_EQ(printable(shell_word(text)), shell_word(text));
  EXPECT_EQ(shell_word("suites/held-out_2.jsonl:64x256"), "suites/held-out_2.jsonl:64x256");
  EXPECT_EQ(shell_word(std::string_view("a\0b", 3)), "a");
}

TEST(ShellWord, APathIsNoOption) {
  EXPECT_EQ(shell_path("-rf"), "./-rf");
  EXPECT_EQ(shell_path("-r f"), "'./-r f'");
  EXPECT_EQ(shell_path("m.gguf"), "m.gguf");
}

TEST(MarkdownText, HasNoMarkup) {
  EXPECT_EQ(markdown_text("ffn_down.weight 語_x"), "ffn_down.weight 語_x");
  EXPECT_EQ(markdown_text("a|b *c* _d_ <img> [x](y) `e` ~~f~~ $g$ #h"),
            "a\\|b \\*c\\* \\_d\\_ \\<img\\> \\[x\\](y) \\`e\\` \\~\\~f\\~\\~ \\$g\\$ \\#h");
  EXPECT_EQ(markdown_text("&lt; &#60; R & D"), "\\&lt; \\&\\#60; R & D");
  EXPECT_EQ(markdown_text("a\nb\x1b"), "a\\\\nb\\\\x1b");
}

TEST(MarkdownText, CodeSpansStayInTheirCell) {
  EXPECT_EQ(markdown_code("{\"a\":1}"), "`{\"a\":1}`");
  EXPECT_EQ(markdown_code("a\n\x1b"), "`a\\n\\x1b`");
  EXPECT_EQ(markdown_code("a|b"), "<code>a\\|b</code>");
  EXPECT_EQ(markdown_code("a`b"), "<code>a\\`b</code>");
  EXPECT_EQ(markdown_code(" "), "<code> </code>");
}

TEST(MarkdownText, NoLineClosesAFence) {
  EXPECT_EQ(markdown_fence("sh", "a\n"), "```sh\na\n```\n");
  EXPECT_EQ(markdown_fence("", "echo '\n```\n````'\x1b"),
            "`````\necho '\n```\n````'\\x1b\n`````\n");
}

}  // namespace
}  // namespace spectralquant
