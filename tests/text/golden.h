#pragma once
#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "spectralquant/gguf/file.h"
#include "spectralquant/text/bpe.h"
#include "spectralquant/text/tokenizer.h"

namespace spectralquant::text {

inline const std::string kNano = std::string(SQ_SOURCE_DIR) + "/models/nano-qwen35-bf16.gguf";

/// Metadata of the embedded model, a copy that tests may change.
inline gguf::Metadata nano_metadata() {
  static const gguf::File file = gguf::File::open(kNano);
  return file.metadata();
}

template <typename Number>
gguf::Value of_array(gguf::ValueType element, const std::vector<Number>& values) {
  const auto type = static_cast<std::uint32_t>(element);
  const std::uint64_t count = values.size();
  std::string bytes(reinterpret_cast<const char*>(&type), sizeof type);
  bytes.append(reinterpret_cast<const char*>(&count), sizeof count);
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof values[0]);
  return {gguf::ValueType::kArray, bytes};
}

inline gguf::Value of_i32_array(const std::vector<std::int32_t>& values) {
  return of_array(gguf::ValueType::kInt32, values);
}
inline gguf::Value of_f32_array(const std::vector<float>& values) {
  return of_array(gguf::ValueType::kFloat32, values);
}

inline std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2)
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

struct GoldenCase {
  std::string text;
  std::vector<TokenId> ids, ids_plain;
};

inline nlohmann::json read_golden_file(const std::string& name) {
  std::ifstream stream(std::string(SQ_SOURCE_DIR) + "/tests/golden/text/" + name + ".json");
  return nlohmann::json::parse(stream);
}
inline nlohmann::json read_golden(const std::string& variant) {
  return read_golden_file("tokens_" + variant);
}

inline GoldenCase to_case(const nlohmann::json& item) {
  GoldenCase golden;
  for (int i = 0; i < item.value("repeat", 1); ++i) golden.text += from_hex(item["hex"]);
  golden.ids = item["ids"].get<std::vector<TokenId>>();
  golden.ids_plain =
      item.contains("ids_plain") ? item["ids_plain"].get<std::vector<TokenId>>() : golden.ids;
  return golden;
}

/// The vocabulary of a file vocabulary_*.json, without the keys of a variant.
inline gguf::Metadata vocabulary_metadata(const nlohmann::json& golden) {
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<std::int32_t> kinds;
  for (const auto& token : golden["tokens"]) {
    tokens.push_back(token[0].get<std::string>());
    scores.push_back(token[1].get<float>());
    kinds.push_back(token[2].get<std::int32_t>());
  }
  gguf::Metadata metadata;
  metadata.set("tokenizer.ggml.tokens", gguf::Value::of_strings(tokens));
  metadata.set("tokenizer.ggml.scores", of_f32_array(scores));
  metadata.set("tokenizer.ggml.token_type", of_i32_array(kinds));
  if (golden.contains("merges"))
    metadata.set("tokenizer.ggml.merges",
                 gguf::Value::of_strings(golden["merges"].get<std::vector<std::string>>()));
  return metadata;
}

/// Sets the keys of a variant: texts, numbers, yes or no.
inline void set_keys(gguf::Metadata& metadata, const nlohmann::json& keys) {
  for (const auto& [key, value] : keys.items())
    metadata.set(key, value.is_string()    ? gguf::Value::of_string(value.get<std::string>())
                      : value.is_boolean() ? gguf::Value::of_bool(value.get<bool>())
                                           : gguf::Value::of_u32(value.get<std::uint32_t>()));
}

inline bool is_probe(const std::string& variant) { return variant.starts_with("probe-"); }

/// Turns the vocabulary into one that shows where words end: every byte, and every byte joined with
/// some.
inline void set_probe_vocabulary(gguf::Metadata& metadata) {
  std::vector<std::string> tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}, merges;
  for (int b = 0; b < 256; ++b) tokens.push_back(letter_of_byte(static_cast<unsigned char>(b)));
  for (char right : std::string("a.1 \n'A~")) {
    for (int left = 0; left < 256; ++left) {
      const std::string &l = letter_of_byte(static_cast<unsigned char>(left)),
                        &r = letter_of_byte(static_cast<unsigned char>(right));
      tokens.push_back(l + r);
      merges.push_back(l + " " + r);
    }
  }
  std::vector<std::int32_t> kinds(tokens.size(), 1);
  kinds[0] = kinds[1] = kinds[2] = 3;
  metadata.set("tokenizer.ggml.tokens", gguf::Value::of_strings(tokens));
  metadata.set("tokenizer.ggml.merges", gguf::Value::of_strings(merges));
  metadata.set("tokenizer.ggml.token_type", of_i32_array(kinds));
}

/// The cases of a golden file, those it leaves out taken from qwen35's.
inline std::vector<GoldenCase> golden_cases(const std::string& variant) {
  std::vector<GoldenCase> cases;
  for (const std::string& name :
       {std::string(is_probe(variant) ? "probe-qwen35" : "qwen35"), variant}) {
    const nlohmann::json file = read_golden(name);
    for (const auto& item : file["cases"]) {
      GoldenCase golden = to_case(item);
      const auto known = std::find_if(cases.begin(), cases.end(), [&](const GoldenCase& other) {
        return other.text == golden.text;
      });
      if (known != cases.end()) {
        *known = std::move(golden);
      } else {
        cases.push_back(std::move(golden));
      }
    }
  }
  return cases;
}

}  // namespace spectralquant::text
