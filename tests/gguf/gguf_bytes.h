#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "spectralquant/core/error.h"

namespace spectralquant::gguf::test {

/// Little-endian bytes of a number.
template <typename T>
std::string le(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

inline std::string str(std::string_view text) {
  return le<std::uint64_t>(text.size()).append(text);
}

inline std::string key_value(std::string_view key, std::uint32_t type, std::string_view value) {
  return str(key) + le<std::uint32_t>(type) + std::string(value);
}

inline std::string tensor_entry(std::string_view name, const std::vector<std::uint64_t>& shape,
                                std::uint32_t type, std::uint64_t offset) {
  std::string bytes = str(name) + le<std::uint32_t>(static_cast<std::uint32_t>(shape.size()));
  for (const std::uint64_t size : shape) bytes += le(size);
  return bytes + le(type) + le(offset);
}

/// A GGUF file put together by hand, so that a test does not believe the writer it tests, and can
/// lie.
struct HandMade {
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::uint64_t n_tensors = 0, n_keys = 0;
  std::string keys, entries, data;
  std::size_t alignment = 32;

  HandMade& key(std::string_view name, std::uint32_t type, std::string_view value) {
    keys += key_value(name, type, value);
    ++n_keys;
    return *this;
  }
  HandMade& tensor(std::string_view name, const std::vector<std::uint64_t>& shape,
                   std::uint32_t type, std::uint64_t offset) {
    entries += tensor_entry(name, shape, type, offset);
    ++n_tensors;
    return *this;
  }
  std::string bytes() const {
    std::string all = magic + le(version) + le(n_tensors) + le(n_keys) + keys + entries;
    if (!data.empty()) all.resize((all.size() + alignment - 1) / alignment * alignment, '\0');
    return all + data;
  }
};

/// Two F32 tensors of 8 values, and some metadata: 64 bytes of data.
inline HandMade small_file() {
  HandMade file;
  file.key("general.architecture", 8, str("test")).key("test.block_count", 4, le<std::uint32_t>(2));
  file.tensor("a.weight", {4, 2}, 0, 0).tensor("b.weight", {8}, 0, 32);
  for (int i = 0; i < 16; ++i) file.data += le(static_cast<float>(i));
  return file;
}

/// A test with a folder of its own, removed at the end.
class FolderTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder = std::filesystem::path(testing::TempDir()) /
             ("sq_" + std::string(info->test_suite_name()) + "_" + info->name() + "_" +
              std::to_string(::getpid()));
    std::filesystem::create_directories(folder);
  }
  void TearDown() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
  }

  std::string path(const std::string& name) const { return (folder / name).string(); }
  std::string put(const std::string& name, const std::string& bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }
  static std::string slurp(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  std::filesystem::path folder;
};

/// Runs body and gives back the Error it must throw.
inline Error error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no Error was thrown";
  return Error(ErrorCode::kFailed, "no Error was thrown");
}

}  // namespace spectralquant::gguf::test
