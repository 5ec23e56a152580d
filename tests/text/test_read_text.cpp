#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>
#include <zlib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "spectralquant/core/error.h"
#include "spectralquant/text/foreign_format.h"
#include "spectralquant/text/read_text.h"

namespace spectralquant::text {
namespace {

using namespace std::string_literals;
using testing::AllOf;
using testing::HasSubstr;

/// One member of a gzip file.
std::string packed(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

class ReadTextTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = (std::filesystem::path(testing::TempDir()) /
             ("read text_" + std::to_string(getpid()) + ".txt"))
                .string();
  }
  void TearDown() override { std::filesystem::remove(path_); }

  std::string read(const std::string& content) {
    std::ofstream(path_, std::ios::binary) << content;
    return read_text(path_);
  }

  std::string refusal(const std::string& content) {
    try {
      read(content);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      EXPECT_FALSE(error.fix().empty());
      return error.what();
    }
    return "accepted";
  }

  std::string path_;
};

TEST_F(ReadTextTest, UnpacksGzip) {
  std::string text;
  for (int i = 0; i < 100000; ++i) text += "line " + std::to_string(i) + "\n";
  EXPECT_EQ(read(packed(text)), text);
  EXPECT_EQ(read(packed("one ") + packed("two")), "one two");
  EXPECT_EQ(read(packed("\xEF\xBB\xBFmarked") + std::string(512, '\0')), "marked");
  EXPECT_EQ(read(packed(std::string(3000000, 'a'))).size(), 3000000u);
}

TEST_F(ReadTextTest, RefusesDamagedGzip) {
  const std::string whole = packed("some text that is long enough to be cut");
  EXPECT_THAT(refusal(whole.substr(0, whole.size() - 5)),
              AllOf(HasSubstr("damaged gzip file"), HasSubstr("cut off")));
  std::string bent = whole;
  bent[whole.size() / 2] ^= 0x55;
  EXPECT_THAT(refusal(bent), HasSubstr("damaged gzip file"));
  EXPECT_THAT(refusal(whole + "rest"), HasSubstr("other bytes follow"));
  EXPECT_THAT(refusal("\x1F\x8B"), HasSubstr("cut off"));
  EXPECT_THAT(refusal(packed(whole)), HasSubstr("gzip twice"));
  EXPECT_THAT(refusal(packed("PAR1....")), HasSubstr("Parquet"));
}

TEST_F(ReadTextTest, NamesWhatIsNoTextAndTheCommandThatHelps) {
  const std::vector<std::tuple<std::string, std::string, std::string>> formats = {
      {"\xFF\xFEh\0i\0"s, "UTF-16", "iconv -f UTF-16 -t UTF-8 '"},
      {"\xFE\xFF\0h\0i"s, "UTF-16", "iconv -f UTF-16 -t UTF-8 '"},
      {"h\0e\0l\0l\0o\0"s, "UTF-16", "iconv -f UTF-16LE -t UTF-8 '"},
      {"\0h\0e\0l\0l\0o"s, "UTF-16", "iconv -f UTF-16BE -t UTF-8 '"},
      {"PAR1\x15\0"s, "Parquet", "pandas.read_parquet"},
      {"\x28\xB5\x2F\xFD\0"s, "zstd", "zstd -d '"},
      {"\xFD"
       "7zXZ\0"s,
       "xz", "xz -dk '"},
      {"BZh91AY&SY", "bzip2", "bzip2 -dk '"},
      {"PK\x03\x04", "zip", "unzip '"},
      {"\x89PNG\r\n\x1A\n", "PNG", "OCR"},
      {"\xFF\xD8\xFF\xE0", "JPEG", "OCR"},
      {"%PDF-1.7", "PDF", "pdftotext '"},
      {"GGUF\x03\0\0\0"s, "GGUF", "give text files"},
      {"\x12\0\0\0\0\0\0\0{\"__metadata__\":{}}"s, "safetensors", "give text files"},
      {std::string(257, '\0') + "ustar", "tar", "tar -xf '"},
  };
  for (const auto& [content, name, fix] : formats)
    EXPECT_THAT(refusal(content), AllOf(HasSubstr(name), HasSubstr(fix)));
  EXPECT_THAT(refusal("caf\xE9"), HasSubstr("iconv -f LATIN1 -t UTF-8 '"));
  EXPECT_THAT(refusal("a\n\0b"s), AllOf(HasSubstr("NUL byte"), HasSubstr(".txt:2")));
}

TEST_F(ReadTextTest, TakesOrdinaryTextForNothingElse) {
  for (const std::string& text :
       {"PAR is golf"s, "BZ"s, "a"s, "II* is no image"s, "{\"__metadata__\": 1}"s, "MM"s, "%PDF"s})
    EXPECT_EQ(read(text), text);
}

TEST_F(ReadTextTest, CommandsOfAFixArriveInAShellWhateverTheNameIs) {
  for (const std::string& name : {"a\nb.txt"s, "it's \x1b[2J.txt"s, "$(touch x);.txt"s}) {
    const std::string folder = std::filesystem::path(path_).parent_path().string();
    path_ = folder + "/" + std::to_string(getpid()) + name;
    const std::string message = refusal("caf\xE9");
    const std::string command = message.substr(message.find("iconv"));
    std::ofstream(folder + "/script") << command << "\n";
    EXPECT_EQ(std::system(("bash '" + folder + "/script'").c_str()), 0) << command;
    std::filesystem::remove(folder + "/script");
    EXPECT_EQ(read_text(path_ + ".utf8"), "caf\xC3\xA9");
    std::filesystem::remove(path_ + ".utf8");
    std::filesystem::remove(path_);
  }
}

}  // namespace
}  // namespace spectralquant::text
