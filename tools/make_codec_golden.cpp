// Makes tests/golden/codec: what ggml itself encodes, decodes and rounds. Run it only to renew
// those files.
//
// Against any llama.cpp install with ggml headers:
//   g++ -std=c++20 -O2 tools/make_codec_golden.cpp -I PREFIX/include -L PREFIX/lib -lggml-base
//   ./a.out tests/golden/codec
//
// The numbers come from a generator of its own, so that the files are the same everywhere.
// README.md there says what each holds.
#include <ggml.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint32_t next() {  // the multiplier of Knuth's MMIX; the high half is good enough
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<std::uint32_t>(state_ >> 32);
  }
  float uniform() { return (next() >> 8) * 0x1p-24f; }
  float normal() {  // of twelve uniforms: exact in any library
    float sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }

 private:
  std::uint64_t state_;
};

void write(const std::string& path, const void* data, std::size_t size) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (!file || std::fwrite(data, 1, size, file) != size || std::fclose(file) != 0) {
    std::fprintf(stderr, "cannot write %s\n", path.c_str());
    std::exit(1);
  }
}

struct Format {
  ggml_type type;
  std::vector<int> half_offsets;  // where a block keeps fp16 numbers
};

/// Two rows of 256 values that ggml encoded, and two of random bytes: every code and scale, extreme
/// fp16 scales.
void make_decoder_golden(const std::string& folder, const Format& format) {
  constexpr int kRows = 4, kCols = 256;
  Random random(1000 + format.type);
  std::vector<float> values(kRows * kCols);
  for (float& v : values) v = 0.05f * random.normal();
  const std::size_t row_bytes = ggml_row_size(format.type, kCols);
  std::vector<std::uint8_t> bytes(kRows * row_bytes);
  const std::vector<float> weights(kCols, 1.f);
  ggml_quantize_chunk(format.type, values.data(), bytes.data(), 0, 2, kCols, weights.data());
  for (std::size_t i = 2 * row_bytes; i < bytes.size(); ++i) bytes[i] = random.next() >> 24;
  const std::uint16_t halves[] = {0x2e66, 0x0001, 0x8203, 0x0400, 0x7bff, 0xb4cd, 0x0000, 0x8000};
  const std::size_t block_bytes = ggml_type_size(format.type);
  std::size_t n = 0;
  for (std::size_t block = 2 * row_bytes; block < bytes.size(); block += block_bytes) {
    for (int offset : format.half_offsets) std::memcpy(&bytes[block + offset], &halves[n++ % 8], 2);
  }
  ggml_get_type_traits(format.type)->to_float(bytes.data(), values.data(), kRows * kCols);
  std::string name = ggml_type_name(format.type);
  for (char& c : name) c = std::toupper(c);
  write(folder + "/" + name + ".bytes", bytes.data(), bytes.size());
  write(folder + "/" + name + ".f32", values.data(), values.size() * sizeof(float));
}

/// One row of 512 values for each shape of input; the order is listed in the README.
void make_rounding_golden(const std::string& folder) {
  constexpr int kCols = 512;
  Random random(7);
  std::vector<float> x;
  auto row = [&](auto value) {
    for (int i = 0; i < kCols; ++i) x.push_back(value(i));
  };
  row([&](int) { return 0.02f * random.normal(); });
  row([&](int i) { return i / 24 % 2 ? 0.5f : -0.25f; });
  row([&](int i) { return (i - 200) / 256.f; });
  row([&](int) { return 0.f; });
  row([&](int) { return 1e-20f * random.normal(); });
  row([&](int) { return 1e30f * random.normal(); });
  row([&](int i) { return i == 77 ? 40.f : 0.01f * random.normal(); });
  row([&](int) { return -0.5f - std::fabs(random.normal()); });
  row([&](int) { return 0.5f + std::fabs(random.normal()); });
  row([&](int i) {
    return i < 256 ? std::ldexp(random.normal(), static_cast<int>(random.next() % 40) - 20)
           : random.uniform() < 0.9f ? 0.f
                                     : random.normal();
  });
  row([&](int) {
    const float z = random.normal();
    return z * z * z;
  });
  row([&](int i) { return i / 32 % 2 ? 3.f + 1e-4f * random.normal() : 1e-7f * random.normal(); });
  const int rows = static_cast<int>(x.size()) / kCols;
  std::vector<float> importance(kCols);
  for (int i = 0; i < kCols; ++i)
    importance[i] =
        i % 17 == 0 ? 0.f
                    : std::ldexp(random.uniform() + 0.5f, static_cast<int>(random.next() % 12) - 6);
  write(folder + "/round_input.f32", x.data(), x.size() * sizeof(float));
  write(folder + "/round_importance.f32", importance.data(), importance.size() * sizeof(float));
  for (const ggml_type type :
       {GGML_TYPE_Q4_K, GGML_TYPE_Q5_K, GGML_TYPE_Q6_K, GGML_TYPE_Q2_K, GGML_TYPE_Q3_K,
        GGML_TYPE_IQ4_XS, GGML_TYPE_IQ4_NL, GGML_TYPE_Q4_0, GGML_TYPE_Q5_0, GGML_TYPE_Q8_0}) {
    std::string name = ggml_type_name(type);
    for (char& c : name) c = std::tolower(c);
    std::vector<std::uint8_t> blocks(ggml_row_size(type, kCols) * rows);
    ggml_quantize_chunk(type, x.data(), blocks.data(), 0, rows, kCols, nullptr);
    write(folder + "/round_plain." + name, blocks.data(), blocks.size());
    ggml_quantize_chunk(type, x.data(), blocks.data(), 0, rows, kCols, importance.data());
    write(folder + "/round_importance." + name, blocks.data(), blocks.size());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  const Format formats[] = {
      {GGML_TYPE_F16, {}},      {GGML_TYPE_BF16, {}},       {GGML_TYPE_Q4_0, {0}},
      {GGML_TYPE_Q4_1, {0, 2}}, {GGML_TYPE_Q5_0, {0}},      {GGML_TYPE_Q5_1, {0, 2}},
      {GGML_TYPE_Q8_0, {0}},    {GGML_TYPE_Q2_K, {80, 82}}, {GGML_TYPE_Q3_K, {108}},
      {GGML_TYPE_Q4_K, {0, 2}}, {GGML_TYPE_Q5_K, {0, 2}},   {GGML_TYPE_Q6_K, {208}},
      {GGML_TYPE_IQ4_NL, {0}},  {GGML_TYPE_IQ4_XS, {0}},    {GGML_TYPE_IQ2_XXS, {0}},
      {GGML_TYPE_IQ2_XS, {0}},  {GGML_TYPE_IQ2_S, {0}},     {GGML_TYPE_IQ3_XXS, {0}},
      {GGML_TYPE_IQ3_S, {0}},   {GGML_TYPE_IQ1_S, {0}},     {GGML_TYPE_IQ1_M, {}},
      {GGML_TYPE_TQ1_0, {52}},  {GGML_TYPE_TQ2_0, {64}},    {GGML_TYPE_Q1_0, {0}},
      {GGML_TYPE_Q2_0, {0}},    {GGML_TYPE_MXFP4, {}},      {GGML_TYPE_NVFP4, {}},
  };
  for (const Format& format : formats) make_decoder_golden(argv[1], format);
  make_rounding_golden(argv[1]);
  return 0;
}
