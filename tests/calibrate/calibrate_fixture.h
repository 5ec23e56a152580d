#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "model/tiny_model.h"
#include "spectralquant/calibrate/collect.h"
#include "spectralquant/core/error.h"

namespace spectralquant::calibrate {

/// What Error the body throws, as text; "" if none.
template <typename Body>
std::string refusal(Body body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline double difference(const torch::Tensor& a, const torch::Tensor& b) {
  return (a.to(torch::kFloat64) - b.to(torch::kFloat64)).abs().max().item<double>();
}

/// ‖a − b‖ / ‖b‖
inline double relative(const torch::Tensor& a, const torch::Tensor& b) {
  return ((a.to(torch::kFloat64) - b.to(torch::kFloat64)).norm() / b.to(torch::kFloat64).norm())
      .item<double>();
}

inline Windows random_windows(std::size_t count, std::size_t length, std::uint64_t seed = 7) {
  std::mt19937_64 random(seed);
  Windows windows(count, std::vector<std::int32_t>(length));
  for (auto& window : windows) {
    for (auto& token : window) token = static_cast<std::int32_t>(random() % model::kTinyVocab);
  }
  return windows;
}

/// A folder for the test's files.
class FolderTest : public ::testing::Test {
 protected:
  FolderTest() { std::filesystem::create_directories(folder_); }
  ~FolderTest() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return folder_ + "/" + name; }

 private:
  std::string folder_ = ::testing::TempDir() + "/sq_" + std::to_string(::getpid());
};

/// A tiny random model; made anew for every test, which takes milliseconds.
class TinyModelTest : public FolderTest {
 protected:
  void open(const model::TinyOptions& options = {}) {
    file_ = std::make_unique<gguf::File>(
        gguf::File::open(model::write_tiny_qwen35(path("tiny.gguf"), options)));
    model_ = std::make_unique<model::Model>(*file_);
  }
  model::Model& model() { return *model_; }

  std::unique_ptr<gguf::File> file_;
  std::unique_ptr<model::Model> model_;
};

}  // namespace spectralquant::calibrate
