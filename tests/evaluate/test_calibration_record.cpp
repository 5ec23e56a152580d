// What a file says of its calibration, and which text that is.
#include "evaluate_fixture.h"
#include "spectralquant/core/hash.h"
#include "spectralquant/evaluate/calibration_record.h"

namespace spectralquant::evaluate {
namespace {

using How = CalibrationRecord::How;

class CalibrationRecordTest : public SuiteFixture {
 protected:
  void SetUp() override {
    spew(path("a.txt"), "the sea of stone runs to a river and the night is long");
    spew(path("b.txt"), "0123456789 0123456789 0123456789 0123456789");
    for (const auto* name : {"a.txt", "b.txt"})
      texts_.push_back({path(name), text::load_corpus({path(name)},
                                                      text::ChatFormat::from_metadata(metadata_))});
  }
  /// Metadata as quantize writes them for calibration on these texts.
  gguf::Metadata made_with(const std::string& description,
                           const std::vector<std::size_t>& texts) const {
    std::vector<std::vector<text::TokenId>> documents;
    for (auto t : texts)
      for (auto& d : text::encode_documents(texts_[t].corpus, tokenizer())) documents.push_back(d);
    Hasher hasher;
    for (const auto& w :
         text::cut_windows(documents, 8, tokenizer().eos(), documents.empty() ? 0 : SIZE_MAX))
      hasher.update(w.data(), w.size() * sizeof(w[0]));
    gguf::Metadata m;
    m.set("spectralquant.options",
          gguf::Value::of_string(
              R"({"method":"spectral","window_tokens":8,"self_tokens":0,"max_tokens":0})"));
    m.set("spectralquant.calibration", gguf::Value::of_string(description));
    m.set("spectralquant.calibration_hash", gguf::Value::of_string(hasher.hex()));
    m.set("spectralquant.calibration_tokens", gguf::Value::of_u64(48));
    return m;
  }
  CalibrationRecord read(const gguf::Metadata& m) const {
    return read_calibration(m, texts_, tokenizer());
  }

  std::vector<CalibrationText> texts_;
};

TEST_F(CalibrationRecordTest, TextIsRecognisedByItsHash) {
  const auto one = read(made_with("b.txt", {1}));
  EXPECT_EQ(one.how, How::kText);
  EXPECT_EQ(one.matched, "hash");
  EXPECT_EQ(one.texts, (std::vector<std::size_t>{1}));
  EXPECT_EQ(one.n_tokens, 48);
  const auto both = read(made_with("b.txt+a.txt", {1, 0}));
  EXPECT_EQ(both.matched, "hash");
  EXPECT_EQ(both.texts, (std::vector<std::size_t>{1, 0}));
  const auto renamed = read(made_with("elsewhere.txt", {0}));
  EXPECT_EQ(renamed.matched, "hash");
  EXPECT_EQ(renamed.texts, (std::vector<std::size_t>{0}));
}

TEST_F(CalibrationRecordTest, WhereTheHashCoversMoreTheNameMustDo) {
  const auto mixed = read(made_with("a.txt+self:4096", {0}));
  EXPECT_EQ(mixed.how, How::kTextAndSelf);
  EXPECT_EQ(mixed.matched, "name");
  EXPECT_EQ(mixed.texts, (std::vector<std::size_t>{0}));
}

TEST_F(CalibrationRecordTest, OtherTextIsNotRecognised) {
  auto other = made_with("c.txt", {0});
  other.set("spectralquant.calibration_hash", gguf::Value::of_string("0123"));
  const auto record = read(other);
  EXPECT_EQ(record.how, How::kText);
  EXPECT_EQ(record.matched, "");
  EXPECT_TRUE(record.texts.empty());
}

TEST_F(CalibrationRecordTest, KnowsFilesThatSawNoText) {
  const auto own = read(made_with("self:4096", {}));
  EXPECT_EQ(own.how, How::kSelf);
  EXPECT_TRUE(own.used_no_text());
  gguf::Metadata plain;
  plain.set("spectralquant.options", gguf::Value::of_string(R"({"method":"plain"})"));
  EXPECT_EQ(read(plain).how, How::kNone);
  EXPECT_TRUE(read(plain).texts.empty());
}

TEST_F(CalibrationRecordTest, StockFilesNameTheImatrixDataset) {
  gguf::Metadata stock;
  stock.set("quantize.imatrix.dataset", gguf::Value::of_string("/home/someone/b.txt"));
  const auto record = read(stock);
  EXPECT_EQ(record.how, How::kText);
  EXPECT_EQ(record.description, "b.txt");
  EXPECT_EQ(record.matched, "name");
  EXPECT_EQ(record.texts, (std::vector<std::size_t>{1}));
}

TEST_F(CalibrationRecordTest, AFileThatSaysNothingMayHaveSeenAll) {
  const auto record = read({});
  EXPECT_EQ(record.how, How::kUnknown);
  EXPECT_EQ(record.matched, "assumed");
  EXPECT_EQ(record.texts, (std::vector<std::size_t>{0, 1}));
}

TEST_F(CalibrationRecordTest, SurvivesHostileMetadata) {
  for (const std::string options :
       {"", "[]", "{\"window_tokens\": \"many\"}", "{\"window_tokens\": -3}",
        "{\"window_tokens\": 99999999999}"}) {
    auto m = made_with("a.txt", {0});
    m.set("spectralquant.options", gguf::Value::of_string(options));
    m.set("spectralquant.calibration_hash", gguf::Value::of_u32(3));
    m.set("spectralquant.calibration_tokens", gguf::Value::of_string("x"));
    EXPECT_NO_THROW(read(m)) << options;
  }
}

}  // namespace
}  // namespace spectralquant::evaluate
