// Names and values of a file are data: nothing in them reaches the terminal as a command.
#include "cli_fixture.h"
#include "gguf/gguf_bytes.h"
#include "spectralquant/core/printable.h"

namespace spectralquant::test {
namespace {

using gguf::test::le;
using gguf::test::str;
using testing::HasSubstr;

class HostileNames : public CliTest {
 protected:
  /// A file whose name, keys, values and tensors try to be terminal codes.
  std::string hostile_file(const std::string& extra = "") {
    gguf::test::HandMade file;
    file.key("general.architecture", 8, str("ar\x1b[31mch"))
        .key("general.name", 8, str("nice\x1b]0;owned\x07\x1b[2J\nstrict Q4_K: yes\u202e\xff"))
        .key("evil\x1b[31mkey\n", 8, str("x" + extra))
        .tensor("evil\x1b[31mtensor\n", {256, 2}, 0, 0);
    file.data = std::string(2048, '\0');
    const std::string name = path("file\x1b[2J.gguf" + extra);
    write_file(name, file.bytes());
    return name;
  }

  static void expect_harmless(const Result& result) {
    EXPECT_EQ(printable(result.out, Breaks::kKept), result.out);
    EXPECT_EQ(printable(result.err, Breaks::kKept), result.err);
  }
};

TEST_F(HostileNames, AreShownByInspect) {
  const std::string file = hostile_file();
  const Result r = run({"inspect", file, "--metadata", "--tensors"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  expect_harmless(r);
  EXPECT_THAT(r.out, HasSubstr("nice\\x1b]0;owned\\x07\\x1b[2J\\nstrict Q4_K: yes\\u202e\\xff\n"));
  EXPECT_THAT(r.out, HasSubstr("evil\\x1b[31mkey\\n = x\n"));
  EXPECT_THAT(r.out, HasSubstr("evil\\x1b[31mtensor\\n "));
  expect_harmless(run({"inspect", file, hostile_file("2")}));
}

TEST_F(HostileNames, AreShownByErrors) {
  const std::string file = hostile_file();
  const Result r = run({"quantize", file, "-o", out(), "--method", "plain"});
  EXPECT_NE(r.exit_code, 0);
  expect_harmless(r);
  EXPECT_THAT(r.err, HasSubstr("\\x1b"));
  const Result missing = run({"inspect", path("no\x1b[2J.gguf")});
  EXPECT_EQ(missing.exit_code, 3);
  expect_harmless(missing);
  const Result usage = run({"inspect", file, "--no\x1b[2J"});
  EXPECT_EQ(usage.exit_code, 2);
  expect_harmless(usage);
}

TEST_F(HostileNames, PiecesOfTokensStayOnTheirLines) {
  write_file(path("text"), "a\n\n\x1b[2J\xe9 b");
  const Result r = run({"tokenize", kModel, path("text"), "--pieces"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  expect_harmless(r);
  EXPECT_THAT(r.out, HasSubstr("'\\n"));
}

}  // namespace
}  // namespace spectralquant::test
