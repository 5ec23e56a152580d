#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <sys/stat.h>

#include <limits>

#include "gguf/gguf_bytes.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/gguf/file.h"
#include "spectralquant/gguf/header.h"

namespace spectralquant::gguf {
namespace {

using test::error_of;
using test::HandMade;
using test::le;
using test::small_file;
using test::str;
using testing::HasSubstr;

constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();

Header parse(const std::string& bytes) {
  return parse_header(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size(), "m.gguf");
}

Error error_in(const HandMade& file) {
  return error_of([&] { parse(file.bytes()); });
}

class FileTest : public test::FolderTest {};

TEST_F(FileTest, ReadsVersions2And3) {
  for (const std::uint32_t version : {2u, 3u}) {
    HandMade made = small_file();
    made.version = version;
    const File file = File::open(put("m.gguf", made.bytes()));
    EXPECT_EQ(file.version(), version);
    EXPECT_EQ(file.architecture(), "test");
    EXPECT_EQ(file.metadata().require_int("test.block_count"), 2);
    EXPECT_EQ(file.metadata().place, path("m.gguf"));
    EXPECT_EQ(file.size_bytes(), made.bytes().size());
    ASSERT_EQ(file.tensors().size(), 2u);
    const Tensor& a = file.require("a.weight");
    EXPECT_EQ(a.shape_text(), "[4, 2]");
    EXPECT_EQ(a.n_rows(), 2u);
    EXPECT_EQ(a.row_bytes(), 16u);
    std::vector<float> row(4);
    decode(a, 1, 1, row.data());
    EXPECT_EQ(row, (std::vector<float>{4, 5, 6, 7}));
    EXPECT_EQ(file.find("c.weight"), nullptr);
    EXPECT_EQ(file.hash(), hash_file(path("m.gguf")));
  }
}

TEST_F(FileTest, ReadsTheEmbeddedModel) {
  const File file = File::open(SQ_SOURCE_DIR "/models/nano-qwen35-bf16.gguf");
  EXPECT_EQ(file.architecture(), "qwen35");
  EXPECT_EQ(file.metadata().find("tokenizer.ggml.tokens")->strings().size(), 4096u);
  EXPECT_EQ(file.require("token_embd.weight").type, Type::BF16);
  for (const Tensor& tensor : file.tensors()) require_finite(tensor, file.path());
}

TEST_F(FileTest, KeepsEveryMetadataByte) {
  const std::string two = le<std::uint64_t>(2);
  const std::vector<std::pair<std::uint32_t, std::string>> values = {
      {0, "\x80"},
      {1, "\x80"},
      {2, "ab"},
      {3, "ab"},
      {4, "abcd"},
      {5, "abcd"},
      {6, le(std::numeric_limits<float>::quiet_NaN())},
      {7, "\2"},
      {8, str(std::string_view("\xff not utf-8 \0", 13))},
      {10, "abcdefgh"},
      {11, "abcdefgh"},
      {12, "abcdefgh"}};
  HandMade made;
  for (const auto& [type, bytes] : values) {
    made.key("scalar." + std::to_string(type), type, bytes);
    made.key("array." + std::to_string(type), 9, le(type) + two + bytes + bytes);
    made.key("empty." + std::to_string(type), 9, le(type) + le<std::uint64_t>(0));
  }
  const Header header = parse(made.bytes());
  ASSERT_EQ(header.metadata.items().size(), made.n_keys);
  std::string again;
  for (const KeyValue& item : header.metadata.items())
    again += test::key_value(item.key, static_cast<std::uint32_t>(item.value.type()),
                             item.value.bytes());
  EXPECT_EQ(again, made.keys);
}

TEST_F(FileTest, HonoursTheAlignmentAndMayLackTheLastPadding) {
  HandMade made;
  made.alignment = 128;
  made.key("general.alignment", 4, le<std::uint32_t>(128))
      .tensor("a", {3}, 0, 0)
      .tensor("s", {}, 0, 128);
  made.data = std::string(128, '\0') + le(2.5f);
  const std::string bytes = made.bytes();
  const Header header = parse(bytes);
  EXPECT_EQ(header.data_offset % 128, 0u);
  float value = 0;
  decode(header.tensors[1], 0, 1, &value);  // no dimensions: one value
  EXPECT_EQ(value, 2.5f);
}

TEST_F(FileTest, NeedsNoTensors) {
  EXPECT_TRUE(File::open(put("vocab.gguf", HandMade().key("k", 0, "1").bytes())).tensors().empty());
}

TEST_F(FileTest, RefusesWhatIsNoModelFile) {
  EXPECT_THAT(error_of([&] { File::open(path("absent.gguf")); }).problem(),
              HasSubstr("No such file"));
  EXPECT_THAT(error_of([&] { File::open(folder.string()); }).problem(), HasSubstr("a folder"));
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  EXPECT_THAT(error_of([&] { File::open(path("fifo")); }).problem(),
              HasSubstr("not a regular file"));
  EXPECT_THAT(error_of([&] { File::open(put("empty", "")); }).problem(),
              HasSubstr("not a GGUF file"));
  const Error text = error_of([&] { File::open(put("text", "hello, world")); });
  EXPECT_EQ(text.problem(), "this is not a GGUF file");
  EXPECT_EQ(text.place(), path("text") + ", header, byte 0");
  EXPECT_EQ(text.code(), ErrorCode::kBadInput);
  EXPECT_FALSE(text.fix().empty());
}

TEST(Header, RefusesForeignVersions) {
  HandMade made = small_file();
  made.version = 1;
  EXPECT_THAT(error_in(made).problem(), HasSubstr("version 1 is not supported"));
  made.version = 4;
  EXPECT_THAT(error_in(made).problem(), HasSubstr("version 4 is not supported"));
  made.version = 0x03000000;
  EXPECT_THAT(error_in(made).problem(), HasSubstr("big-endian"));
}

TEST(Header, RefusesCountsThatLie) {
  for (const std::uint64_t lie : {kHuge, kHuge / 2, std::uint64_t{1} << 40, std::uint64_t{1000}}) {
    HandMade made = small_file();
    made.n_tensors = lie;
    EXPECT_THAT(error_in(made).problem(), HasSubstr("more than the file can hold"));
    made = small_file();
    made.n_keys = lie;
    EXPECT_THAT(error_in(made).problem(), HasSubstr("more than the file can hold"));
  }
  HandMade made = small_file();
  made.n_keys = 3;  // one too many: a tensor is taken for a key
  EXPECT_THROW(parse(made.bytes()), Error);
}

TEST(Header, RefusesBadKeysAndValues) {
  const auto with = [](std::string_view key, std::uint32_t type, const std::string& value) {
    return error_in(small_file().key(key, type, value));
  };
  const Error twice = with("test.block_count", 4, "abcd");
  EXPECT_EQ(twice.problem(), "metadata key test.block_count is there twice");
  EXPECT_THAT(twice.place(), HasSubstr("m.gguf, metadata key 3 of 3, byte "));
  EXPECT_THAT(with("", 4, "abcd").problem(), HasSubstr("the key is 0 bytes long"));
  EXPECT_THAT(with("bad\xff", 4, "abcd").problem(), HasSubstr("not valid UTF-8"));
  EXPECT_THAT(with(std::string("k\0x", 3), 4, "abcd").problem(), HasSubstr("NUL byte"));
  EXPECT_THAT(with(std::string(70000, 'k'), 4, "abcd").problem(), HasSubstr("70000 bytes long"));
  EXPECT_EQ(with("k", 13, "abcd").problem(), "value type 13 is unknown");
  EXPECT_THAT(with("k", 8, le(kHuge)).problem(), HasSubstr("longer than the rest of the file"));
  EXPECT_THAT(with("k", 9, le<std::uint32_t>(9) + le<std::uint64_t>(0)).problem(),
              HasSubstr("arrays of arrays"));
  EXPECT_THAT(with("k", 9, le<std::uint32_t>(77) + le<std::uint64_t>(0)).problem(),
              HasSubstr("unknown type"));
  for (const std::uint32_t element : {0u, 4u, 7u, 8u, 12u})
    for (const std::uint64_t lie : {kHuge, kHuge / 8 + 2, std::uint64_t{1} << 62})
      EXPECT_THAT(with("k", 9, le(element) + le(lie)).problem(),
                  HasSubstr("more elements than the rest of the file"));
}

TEST(Header, RefusesBadAlignment) {
  for (const std::uint32_t bad : {0u, 3u, 48u}) {
    const Error error = error_in(small_file().key("general.alignment", 4, le(bad)));
    EXPECT_THAT(error.problem(), HasSubstr("must be a power of two"));
  }
  EXPECT_THAT(error_in(small_file().key("general.alignment", 10, le<std::uint64_t>(32))).problem(),
              HasSubstr("(u64)"));
  EXPECT_THAT(error_in(small_file().key("general.alignment", 8, str("32"))).problem(),
              HasSubstr("(string)"));
  EXPECT_THROW(parse(small_file().key("general.alignment", 4, le<std::uint32_t>(1u << 31)).bytes()),
               Error);
}

TEST(Header, RefusesBadTensors) {
  const auto with = [](std::string_view name, const std::vector<std::uint64_t>& shape,
                       std::uint32_t type, std::uint64_t offset) {
    HandMade made = small_file().tensor(name, shape, type, offset);
    made.data.resize(4096, '\0');
    return error_in(made);
  };
  EXPECT_EQ(with("a.weight", {4}, 0, 64).problem(), "tensor a.weight is there twice");
  EXPECT_THAT(with("", {4}, 0, 64).problem(), HasSubstr("name is 0 bytes long"));
  EXPECT_THAT(with("t\xc0", {4}, 0, 64).problem(), HasSubstr("not valid UTF-8"));
  EXPECT_THAT(with(std::string("t\0u", 3), {4}, 0, 64).problem(), HasSubstr("NUL byte"));
  EXPECT_THAT(with(std::string(64, 't'), {4}, 0, 64).problem(),
              HasSubstr("64 bytes long; 1 to 63"));
  EXPECT_THAT(with(std::string(64, 't'), {4}, 0, 64).fix(), HasSubstr("names that llama.cpp"));
  const Error dims = with("t", {1, 1, 1, 1, 1}, 0, 64);
  EXPECT_EQ(dims.problem(), "t has 5 dimensions; at most 4 are allowed");
  EXPECT_THAT(dims.place(), HasSubstr("m.gguf, tensor 3 of 3 (t), byte "));
  EXPECT_EQ(with("t", {4, 0}, 0, 64).problem(), "dimension 1 of t is 0");
  EXPECT_EQ(with("t", {0}, 0, 64).problem(), "dimension 0 of t is 0");
  EXPECT_THAT(with("t", {4, kHuge / 2, 3}, 0, 64).problem(), HasSubstr("overflow"));
  EXPECT_THAT(with("t", {kHuge / 2 + 1}, 0, 64).problem(), HasSubstr("overflow"));
  EXPECT_THAT(with("t", {std::uint64_t{1} << 32, std::uint64_t{1} << 32}, 24, 64).problem(),
              HasSubstr("overflow"));
  EXPECT_THAT(with("t", {4}, 31, 64).problem(),
              HasSubstr("tensor type 31, which is unknown or was removed"));
  EXPECT_THAT(with("t", {4}, 0xffffffff, 64).problem(), HasSubstr("unknown"));
  EXPECT_EQ(with("t", {14330}, 12, 64).problem(),
            "t has 14330 columns; Q4_K needs a multiple of 256");
  EXPECT_THAT(with("t", {4}, 0, 65).problem(), HasSubstr("no multiple of the alignment 32"));
  EXPECT_THAT(with("t", {4096}, 0, 64).problem(), HasSubstr("the file ends before the data of t"));
  for (const std::uint64_t offset :
       {kHuge - 31, std::uint64_t{0}, std::uint64_t{32}, std::uint64_t{96}, std::uint64_t{4096}})
    EXPECT_EQ(with("t", {4}, 0, offset).problem(),
              fmt::format("the data of t begins at {}; 64 is expected after the tensor before it",
                          offset));
}

TEST(Header, TruncatedAnywhereIsAnError) {
  const std::string whole =
      small_file()
          .key("words", 9, le<std::uint32_t>(8) + le<std::uint64_t>(2) + str("a") + str("bc"))
          .bytes();
  for (std::size_t n = 0; n < whole.size(); ++n) {
    // its own allocation, so that a sanitizer sees a read past the end
    const std::string cut = whole.substr(0, n);
    const Error error = error_of([&] { parse(cut); });
    EXPECT_EQ(error.code(), ErrorCode::kBadInput) << n;
    EXPECT_FALSE(error.place().empty() || error.fix().empty()) << n;
  }
  EXPECT_NO_THROW(parse(whole));
}

TEST(Header, FlippedBytesNeverCrash) {
  const std::string whole =
      small_file()
          .key("words", 9, le<std::uint32_t>(8) + le<std::uint64_t>(2) + str("a") + str("bc"))
          .bytes();
  EXPECT_TRUE(rc::check("a damaged file is an Error or a file that can be read", [&] {
    std::string bytes = whole;
    const int n_flips = *rc::gen::inRange(1, 6);
    for (int i = 0; i < n_flips; ++i)
      bytes[*rc::gen::inRange<std::size_t>(0, bytes.size())] =
          static_cast<char>(*rc::gen::arbitrary<std::uint8_t>());
    try {
      const Header header = parse(bytes);
      for (const KeyValue& item : header.metadata.items()) item.value.to_display();
      for (const Tensor& tensor : header.tensors) {
        if (!traits(tensor.type).decodable) continue;
        std::vector<float> values(tensor.n_values());
        decode(tensor, 0, tensor.n_rows(), values.data());
      }
    } catch (const Error&) {
    }
  }));
}

TEST_F(FileTest, DecodeRefusesRowsAndTypesThatAreNotThere) {
  HandMade made = small_file().tensor("ids", {8}, 26, 64);
  made.data += std::string(32, '\0');
  const File file = File::open(put("m.gguf", made.bytes()));
  std::vector<float> out(64);
  EXPECT_THROW(decode(file.require("a.weight"), 1, 2, out.data()), Error);
  EXPECT_THROW(decode(file.require("a.weight"), kHuge, 2, out.data()), Error);
  EXPECT_NO_THROW(decode(file.require("a.weight"), 2, 0, out.data()));
  EXPECT_EQ(error_of([&] { file.require("zz"); }).problem(), "tensor zz is missing");
}

TEST_F(FileTest, FindsTheFirstValueThatIsNotFinite) {
  const std::uint64_t n_cols = 1000, n_rows = 300;  // several chunks
  std::string data;
  for (std::uint64_t i = 0; i < n_cols * n_rows; ++i) data += le<std::uint16_t>(0x3f80);
  const auto write_value = [&](std::uint64_t row, std::uint64_t column, std::uint16_t bits) {
    std::memcpy(&data[2 * (row * n_cols + column)], &bits, 2);
  };
  const auto check = [&] {
    HandMade made;
    made.tensor("w", {n_cols, n_rows}, 30, 0);
    made.data = data;
    const File file = File::open(put("m.gguf", made.bytes()));
    require_finite(file.require("w"), file.path());
  };
  EXPECT_NO_THROW(check());
  write_value(299, 999, 0x7fc0);
  EXPECT_EQ(error_of(check).problem(), "w holds NaN at row 299, column 999");
  write_value(3, 17, 0xff80);
  const Error error = error_of(check);
  EXPECT_EQ(error.problem(), "w holds an infinity at row 3, column 17");
  EXPECT_THAT(error.place(), HasSubstr("w BF16 [1000, 300]"));
}

class SplitTest : public test::FolderTest {
 protected:
  static HandMade part(std::uint16_t number, std::uint16_t count, const std::string& tensor_name,
                       std::int32_t n_tensors = 3) {
    HandMade made;
    if (number == 0) made.key("general.architecture", 8, str("test"));
    made.key("split.no", 2, le(number))
        .key("split.count", 2, le(count))
        .key("split.tensors.count", 5, le(n_tensors));
    made.tensor(tensor_name, {8}, 0, 0);
    for (int i = 0; i < 8; ++i) made.data += le(static_cast<float>(number));
    return made;
  }
  std::string put_all() {
    put("m-00002-of-00003.gguf", part(1, 3, "b").bytes());
    put("m-00003-of-00003.gguf", part(2, 3, "c").bytes());
    return put("m-00001-of-00003.gguf", part(0, 3, "a").bytes());
  }
  std::string problem() {
    return error_of([&] { File::open(path("m-00001-of-00003.gguf")); }).problem();
  }
};

TEST_F(SplitTest, ReadsAllParts) {
  const File file = File::open(put_all());
  EXPECT_EQ(file.paths().size(), 3u);
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.architecture(), "test");
  std::vector<float> values(8);
  decode(file.require("c"), 0, 1, values.data());
  EXPECT_EQ(values[7], 2.0f);
  EXPECT_EQ(file.hash(),
            hash_hex(slurp(file.paths()[0]) + slurp(file.paths()[1]) + slurp(file.paths()[2])));
}

TEST_F(SplitTest, RefusesIncompleteOrMixedSets) {
  put_all();
  EXPECT_THAT(error_of([&] { File::open(path("m-00002-of-00003.gguf")); }).problem(),
              HasSubstr("is part 2 of 3 of a split model, not the first"));
  std::filesystem::rename(path("m-00003-of-00003.gguf"), path("gone"));
  EXPECT_EQ(problem(), "part 3 of 3 of the split model is missing");
  put("m-00003-of-00003.gguf", part(1, 3, "c").bytes());
  EXPECT_THAT(problem(), HasSubstr("says it is part 2 of 3, not 3 of 3"));
  put("m-00003-of-00003.gguf", part(2, 3, "a").bytes());
  EXPECT_THAT(problem(), HasSubstr("tensor a is there twice, in different parts"));
  put("m-00003-of-00003.gguf", part(2, 3, "c").bytes());
  put("m-00001-of-00003.gguf", part(0, 3, "a", 9).bytes());
  EXPECT_THAT(problem(), HasSubstr("hold 3 tensors, but split.tensors.count is 9"));
  EXPECT_THAT(error_of([&] { File::open(put("renamed.gguf", part(0, 3, "a").bytes())); }).problem(),
              HasSubstr("its name does not end in -00001-of-00003.gguf"));
  put("m-00001-of-00003.gguf",
      HandMade().key("split.count", 11, le<std::int64_t>(1'000'000)).bytes());
  EXPECT_THAT(problem(), HasSubstr("at most 99999 parts"));
}

}  // namespace
}  // namespace spectralquant::gguf
