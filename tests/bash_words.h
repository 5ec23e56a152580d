#pragma once
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace spectralquant::test {

using Words = std::vector<std::string>;

/// The commands that bash runs for `script`, each with its words as the program would get them.
///
/// Programs are stand-ins that write their arguments down. PATH is empty: anything else that the
/// script tries fails, and the test with it.
inline std::vector<Words> bash_words(const std::string& script) {
  std::string pattern = (std::filesystem::temp_directory_path() / "sq-bash-XXXXXX").string();
  const std::filesystem::path folder = mkdtemp(pattern.data());
  std::ofstream(folder / "script", std::ios::binary)
      << "PATH=; set -e\n"
         "write() { printf '%s\\0' \"$@\" >> words; printf '\\0end\\0' >> words; }\n"
         "for name in spectralquant llama-cli llama-server ollama lms program; do\n"
         "  eval \"$name() { write $name \\\"\\$@\\\"; }\"\n"
         "done\n"
      << script << "\n";
  const int status =
      std::system(("cd '" + folder.string() + "' && LC_ALL=C bash script > log 2>&1").c_str());
  const auto read = [&](const char* name) {
    std::ifstream in(folder / name, std::ios::binary);
    return std::string{std::istreambuf_iterator<char>(in), {}};
  };
  EXPECT_EQ(status, 0) << read("log") << "\n" << script;
  EXPECT_EQ(read("log"), "") << script;
  std::size_t n_files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++n_files;
  EXPECT_EQ(n_files, 3u) << "the script left files: " << script;
  std::vector<Words> commands;
  Words words;
  std::string text = read("words");
  for (std::size_t begin = 0, end; (end = text.find('\0', begin)) != std::string::npos;
       begin = end + 1) {
    std::string word = text.substr(begin, end - begin);
    // an empty word and "end": the mark; no argument of these tests is "end"
    if (word == "end" && !words.empty() && words.back().empty()) {
      words.pop_back();
      commands.push_back(std::move(words));
      words.clear();
    } else {
      words.push_back(std::move(word));
    }
  }
  std::filesystem::remove_all(folder);
  return commands;
}

}  // namespace spectralquant::test
