#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "spectralquant/core/json_text.h"

namespace spectralquant {
namespace {

TEST(JsonText, NeverFails) {
  const nlohmann::json value = {{"p\xe8re", "caf\xe9"}};
  EXPECT_EQ(json_text(value), "{\"p\xef\xbf\xbdre\":\"caf\xef\xbf\xbd\"}");
  EXPECT_EQ(json_text(nlohmann::ordered_json{{"b", 1}, {"a", 2}}, 1),
            "{\n \"b\": 1,\n \"a\": 2\n}");
}

TEST(JsonText, CommandsNoTerminal) {
  const std::string name = "\x1b[2J\x7f\xc2\x9b\u202e\n";
  const std::string text = json_text(nlohmann::json{{"name", name}}, 1);
  EXPECT_EQ(text, "{\n \"name\": \"\\u001b[2J\\u007f\\u009b\\u202e\\n\"\n}");
  EXPECT_EQ(nlohmann::json::parse(text)["name"], name);
}

TEST(JsonText, ValidTextStaysAsItIs) {
  EXPECT_EQ(valid_utf8("d\xc3\xa9j\xc3\xa0 \"vu\"\n"), "d\xc3\xa9j\xc3\xa0 \"vu\"\n");
  EXPECT_EQ(valid_utf8("\xff\xfe"), "\xef\xbf\xbd\xef\xbf\xbd");
}

/// dump() throws on text that is not UTF-8, after the work is done.
TEST(JsonText, IsTheOnlyWriterOfJson) {
  namespace fs = std::filesystem;
  for (const auto& entry : fs::recursive_directory_iterator(SQ_SOURCE_DIR "/spectralquant")) {
    const fs::path& path = entry.path();
    if ((path.extension() != ".cpp" && path.extension() != ".h") ||
        path.filename() == "json_text.cpp")
      continue;
    std::ifstream in(path);
    const std::string source{std::istreambuf_iterator<char>(in), {}};
    EXPECT_EQ(source.find(".dump("), std::string::npos) << path << " writes JSON by itself";
  }
}

}  // namespace
}  // namespace spectralquant
