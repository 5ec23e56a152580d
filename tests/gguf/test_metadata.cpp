#include <gtest/gtest.h>

#include <limits>

#include "gguf/gguf_bytes.h"
#include "spectralquant/gguf/metadata.h"
#include "spectralquant/gguf/value.h"

namespace spectralquant::gguf {
namespace {

using test::error_of;
using test::le;
using test::str;

std::string array(ValueType element, std::uint64_t count, const std::string& bytes) {
  return le(static_cast<std::uint32_t>(element)) + le(count) + bytes;
}

TEST(Value, ConvertsEveryScalarThatFits) {
  EXPECT_EQ(Value(ValueType::kUint8, le<std::uint8_t>(200)).as_int(), 200);
  EXPECT_EQ(Value(ValueType::kInt8, le<std::int8_t>(-3)).as_int(), -3);
  EXPECT_EQ(Value(ValueType::kUint16, le<std::uint16_t>(65535)).as_int(), 65535);
  EXPECT_EQ(Value(ValueType::kInt16, le<std::int16_t>(-32768)).as_int(), -32768);
  EXPECT_EQ(Value::of_u32(4294967295u).as_int(), 4294967295);
  EXPECT_EQ(Value(ValueType::kInt32, le<std::int32_t>(-5)).as_number(), -5.0);
  EXPECT_EQ(Value::of_u64(7).as_int(), 7);
  EXPECT_EQ(Value(ValueType::kInt64, le(std::numeric_limits<std::int64_t>::min())).as_int(),
            std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(Value::of_f32(1.5f).as_number(), 1.5);
  EXPECT_EQ(Value(ValueType::kFloat64, le(-0.25)).as_number(), -0.25);
  EXPECT_EQ(Value::of_bool(true).as_bool(), true);
  EXPECT_EQ(Value::of_bool(true).as_int(), 1);
  EXPECT_EQ(Value::of_string("héllo").as_string(), "héllo");
  EXPECT_EQ(Value().as_int(), 0);
}

TEST(Value, GivesNulloptForWhatDoesNotFit) {
  EXPECT_FALSE(Value::of_u64(std::numeric_limits<std::uint64_t>::max()).as_int());
  EXPECT_FALSE(Value::of_f32(3).as_int());
  EXPECT_FALSE(Value::of_bool(true).as_number());
  EXPECT_FALSE(Value::of_string("7").as_int());
  EXPECT_FALSE(Value::of_string("7").as_number());
  EXPECT_FALSE(Value::of_u32(1).as_bool());
  EXPECT_FALSE(Value::of_u32(1).as_string());
  EXPECT_FALSE(Value::of_strings({"a"}).as_string());
}

TEST(Value, ReadsArrays) {
  const Value words = Value::of_strings({"", "a", std::string("z\0z", 3)});
  EXPECT_EQ(words.array_size(), 3u);
  EXPECT_EQ(words.strings(), (std::vector<std::string_view>{"", "a", std::string_view("z\0z", 3)}));
  EXPECT_TRUE(words.numbers().empty());
  const Value shorts(ValueType::kArray,
                     array(ValueType::kInt16, 2, le<std::int16_t>(-1) + le<std::int16_t>(9)));
  EXPECT_EQ(shorts.numbers(), (std::vector<double>{-1, 9}));
  EXPECT_TRUE(shorts.strings().empty());
  EXPECT_EQ(Value(ValueType::kArray, array(ValueType::kBool, 2, std::string("\1\0", 2))).numbers(),
            (std::vector<double>{1, 0}));
  EXPECT_EQ(Value::of_strings({}).array_size(), 0u);
  EXPECT_EQ(Value::of_u32(1).array_size(), 0u);
}

TEST(Value, ShowsItself) {
  EXPECT_EQ(Value::of_f32(1e-6f).to_display(), "1e-06");
  EXPECT_EQ(Value::of_bool(false).to_display(), "false");
  EXPECT_EQ(Value::of_string("x").to_display(), "x");
  EXPECT_EQ(Value::of_strings({"a", "b"}).to_display(), "[\"a\", \"b\"]");
  EXPECT_EQ(Value::of_strings({"a", "b"}).to_display(1), "[2 strings]");
  const Value bytes(ValueType::kArray, array(ValueType::kUint8, 3, "\1\2\3"));
  EXPECT_EQ(bytes.to_display(), "[1, 2, 3]");
  EXPECT_EQ(bytes.to_display(2), "[1, 2, …] (3 x u8)");
}

TEST(Value, RefusesBytesThatAreNoValue) {
  EXPECT_THROW(Value(ValueType::kUint32, "abc"), Error);
  EXPECT_THROW(Value(ValueType::kUint32, "abcde"), Error);
  EXPECT_THROW(Value(ValueType::kString, le<std::uint64_t>(9) + "short"), Error);
  EXPECT_THROW(Value(static_cast<ValueType>(13), ""), Error);
  EXPECT_THROW(Value(ValueType::kArray, array(ValueType::kArray, 0, "")), Error);
  EXPECT_THROW(Value(ValueType::kArray,
                     array(ValueType::kUint64, std::numeric_limits<std::uint64_t>::max() / 4, "")),
               Error);
}

TEST(Value, KnowsUtf8) {
  for (const std::string_view good :
       {"", "plain", "é", "語", "😀", "\xed\x9f\xbf", "\xf4\x8f\xbf\xbf"})
    EXPECT_TRUE(is_utf8(good)) << good;
  for (const std::string_view bad :
       {"\x80", "\xc3", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "a\xff"})
    EXPECT_FALSE(is_utf8(bad)) << testing::PrintToString(bad);
}

TEST(Metadata, KeepsOrderAndReplacesInPlace) {
  Metadata metadata;
  metadata.set("a", Value::of_u32(1));
  metadata.set("b", Value::of_u32(2));
  metadata.set("a", Value::of_string("one"));
  ASSERT_EQ(metadata.items().size(), 2u);
  EXPECT_EQ(metadata.items()[0].value.as_string(), "one");
  EXPECT_TRUE(metadata.erase("a"));
  EXPECT_FALSE(metadata.erase("a"));
  EXPECT_EQ(metadata.find("a"), nullptr);
}

TEST(Metadata, NamesTheKeyThatIsMissingOrWrong) {
  Metadata metadata;
  metadata.place = "model.gguf";
  metadata.set("text", Value::of_string("x"));
  metadata.set("n", Value::of_u32(3));
  EXPECT_EQ(metadata.require_int("n"), 3);
  EXPECT_EQ(metadata.require_number("n"), 3.0);
  EXPECT_EQ(metadata.require_string("text"), "x");
  EXPECT_EQ(metadata.int_or("absent", 5), 5);
  EXPECT_EQ(metadata.number_or("absent", 0.5), 0.5);
  EXPECT_EQ(metadata.string_or("absent", "y"), "y");
  EXPECT_TRUE(metadata.bool_or("absent", true));

  const Error missing = error_of([&] { metadata.require_int("absent"); });
  EXPECT_EQ(missing.problem(), "metadata key absent is missing");
  EXPECT_EQ(missing.place(), "model.gguf");
  EXPECT_EQ(error_of([&] { metadata.require_int("text"); }).problem(),
            "metadata key text is x (string), not an integer");
  EXPECT_EQ(error_of([&] { metadata.require_string("n"); }).problem(),
            "metadata key n is 3 (u32), not a string");
  EXPECT_THROW(metadata.require_number("text"), Error);
  EXPECT_THROW(metadata.bool_or("n", false), Error);
  EXPECT_THROW(metadata.int_or("text", 1), Error);
}

}  // namespace
}  // namespace spectralquant::gguf
