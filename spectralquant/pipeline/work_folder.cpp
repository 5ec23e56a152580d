#include "spectralquant/pipeline/work_folder.h"

#include <dirent.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <vector>

#include "spectralquant/core/error.h"
#include "spectralquant/core/json_text.h"
#include "spectralquant/gguf/partial_file.h"

namespace spectralquant::pipeline {
namespace {

namespace fs = std::filesystem;

constexpr const char* kJobFile = "job.json";
constexpr const char* kEnding = ".work";

/// Names of tensors may hold what names of files may not. Different names stay different.
std::string file_name(std::string_view name) {
  std::string out;
  for (const char c : name) out += c == '/' ? "%2F" : c == '%' ? "%25" : std::string(1, c);
  return out;
}

void write_file(const std::string& path, std::string_view bytes) {
  gguf::PartialFile(path, /*overwrite=*/true, {}).finish({bytes});
}

std::optional<std::string> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  std::string bytes{std::istreambuf_iterator<char>(in), {}};
  if (in.bad()) return std::nullopt;
  return bytes;
}

/// Names of the files in a folder, which has no folders in it.
///
/// By hand: PyTorch's own libtorch exports parts of another std::filesystem, and its directory
/// iterators crash.
std::vector<std::string> list(const std::string& folder) {
  std::vector<std::string> names;
  DIR* stream = ::opendir(folder.c_str());
  if (!stream) return names;
  while (const dirent* entry = ::readdir(stream)) {
    if (const std::string name = entry->d_name; name != "." && name != "..") names.push_back(name);
  }
  ::closedir(stream);
  return names;
}

/// Key of the job a folder belongs to; "" if that cannot be told.
std::string key_of(const std::string& folder) {
  const auto text = read_file(folder + "/" + kJobFile);
  if (!text) return "";
  const auto json = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  return json.is_object() && json.contains("key") && json["key"].is_string()
             ? json["key"].get<std::string>()
             : "";
}

}  // namespace

void WorkFolder::require_usable(const std::string& output, const std::string& key,
                                bool start_over) {
  const std::string path = output + kEnding;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) return;  // made beside the output, whose folder is checked
  if (!fs::is_directory(path, ignored)) {
    throw bad_input(path + " is in the way: a folder of this name keeps what a run has finished",
                    path, "move it, or choose another output");
  }
  if (::access(path.c_str(), W_OK | X_OK) != 0)
    throw bad_input(
        "the work of an unfinished run cannot be continued: the folder is write-protected", path,
        "check its permissions, or choose another output");
  if (key_of(path) != key && !start_over && !list(path).empty()) {
    throw bad_input(
        "an unfinished run with another input, other text or other options left its work here",
        path,
        "give its options again to continue it, --force to throw its work away, or another output");
  }
}

std::uint64_t WorkFolder::size_bytes(const std::string& output) {
  std::uint64_t total = 0;
  for (const std::string& name : list(output + kEnding)) {
    std::error_code error;
    const auto size = fs::file_size(output + kEnding + "/" + name, error);
    if (!error) total += size;
  }
  return total;
}

WorkFolder::WorkFolder(const std::string& output, std::string key, std::string about,
                       bool start_over)
    : path_(output + kEnding), key_(std::move(key)), about_(std::move(about)) {
  require_usable(output, key_, start_over);
  std::error_code ignored;
  if (!fs::exists(path_, ignored)) return;
  if (key_of(path_) == key_)
    continued_ = made_ = true;
  else
    remove();
}

std::optional<std::string> WorkFolder::find(std::string_view name) const {
  const std::string path = path_ + "/" + file_name(name);
  std::error_code ignored;
  if (!continued_ || !fs::is_regular_file(path, ignored)) return std::nullopt;
  return path;
}

std::optional<std::string> WorkFolder::read(std::string_view name) const {
  const auto path = find(name);
  return path ? read_file(*path) : std::nullopt;
}

std::string WorkFolder::file(std::string_view name) {
  if (!made_) {
    std::error_code error;
    fs::create_directory(path_, error);
    if (error)
      throw Error(ErrorCode::kBadInput, "cannot create " + path_ + ": " + error.message(), path_,
                  "check the folder's permissions and the disk");
    const nlohmann::ordered_json job = {
        {"key", key_}, {"about", nlohmann::ordered_json::parse(about_, nullptr, false)}};
    write_file(path_ + "/" + kJobFile, json_text(job, 2) + "\n");
    made_ = true;
  }
  return path_ + "/" + file_name(name);
}

void WorkFolder::write(std::string_view name, std::string_view bytes) {
  write_file(file(name), bytes);
}

void WorkFolder::remove() {
  for (const std::string& name : list(path_)) ::unlink((path_ + "/" + name).c_str());
  ::rmdir(path_.c_str());
  continued_ = made_ = false;
}

}  // namespace spectralquant::pipeline
