#include <fstream>

#include "calibrate/calibrate_fixture.h"
#include "spectralquant/calibrate/signal_checks.h"
#include "spectralquant/calibrate/signal_file.h"
#include "spectralquant/calibrate/signals.h"

namespace spectralquant::calibrate {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Signals example() {
  torch::manual_seed(3);
  const auto moment = [](std::int64_t n) {
    const torch::Tensor x = torch::randn({n, n});
    return x.mm(x.t()).contiguous();
  };
  Signals signals;
  const torch::Tensor shared = moment(8);
  signals.matrices["blk.0.attn_q.weight"] = {shared, moment(4), {}, {}};
  signals.matrices["blk.0.attn_k.weight"] = {shared, {}, {}, {}};
  signals.matrices["blk.0.ffn_down.weight"] = {moment(6), moment(8), {}, {}};
  signals.matrices["token_embd.weight"] = {moment(8), {}, torch::rand({5}), moment(8)};
  signals.matrices["tied_head.weight"] = {moment(8), moment(5), torch::rand({5}), moment(8)};
  // only the diagonal of G
  signals.matrices["large_head.weight"] = {moment(8), torch::rand({5}), {}, {}};
  signals.matrices["looked_up.weight"] = {{}, {}, torch::rand({5}), moment(8)};
  signals.n_tokens = 12345;
  signals.text_hash = "a";
  signals.model_hash = "b";
  signals.description = "text.txt+self:512";
  return signals;
}

bool same(const torch::Tensor& a, const torch::Tensor& b) {
  return a.defined() == b.defined() && (!a.defined() || torch::equal(a, b));
}

class SignalsTest : public FolderTest {};

TEST_F(SignalsTest, ComeBackAsTheyWere) {
  const Signals before = example();
  save_signals(before, path("s.gguf"), false);
  const Signals after = load_signals(path("s.gguf"));
  EXPECT_EQ(after.n_tokens, 12345);
  EXPECT_EQ(after.text_hash, "a");
  EXPECT_EQ(after.model_hash, "b");
  EXPECT_EQ(after.description, "text.txt+self:512");
  EXPECT_FALSE(after.diagonal_only);
  ASSERT_EQ(after.matrices.size(), before.matrices.size());
  for (const auto& [name, signal] : before.matrices) {
    const MatrixSignal& other = after.matrices.at(name);
    EXPECT_TRUE(same(signal.h, other.h) && same(signal.g, other.g) && same(signal.c, other.c) &&
                same(signal.frequency, other.frequency))
        << name;
  }
}

TEST_F(SignalsTest, OneInputIsStoredOnceAndSharedAgain) {
  save_signals(example(), path("s.gguf"), false);
  // it stands under attn_k
  EXPECT_EQ(gguf::File::open(path("s.gguf")).find("blk.0.attn_q.weight.h"), nullptr);
  const Signals after = load_signals(path("s.gguf"));
  EXPECT_EQ(after.matrices.at("blk.0.attn_q.weight").h.data_ptr(),
            after.matrices.at("blk.0.attn_k.weight").h.data_ptr());
}

TEST_F(SignalsTest, AnExistingFileIsOnlyReplacedWhenAllowed) {
  save_signals(example(), path("s.gguf"), false);
  EXPECT_NE(refusal([&] { save_signals(example(), path("s.gguf"), false); }), "");
  EXPECT_EQ(refusal([&] { save_signals(example(), path("s.gguf"), true); }), "");
}

TEST_F(SignalsTest, OtherFilesAreRefused) {
  save_imatrix(example(), path("im.gguf"), 512, false);
  EXPECT_THAT(refusal([&] { load_signals(path("im.gguf")); }), HasSubstr("holds no signals"));
  save_signals(example(), path("s.gguf"), false);
  EXPECT_THAT(refusal([&] { load_imatrix(path("s.gguf")); }), HasSubstr("no importance matrix"));
  EXPECT_TRUE(is_imatrix(path("im.gguf")));
  EXPECT_FALSE(is_imatrix(path("s.gguf")));
}

/// Writes a file with the signals' metadata changed and no tensors.
void write_header(const std::string& from, const std::string& to,
                  const std::function<void(gguf::Metadata&)>& change) {
  gguf::Metadata metadata = gguf::File::open(from).metadata();
  change(metadata);
  gguf::Writer(to, metadata, {}).commit();
}

TEST_F(SignalsTest, DamagedFilesAreRefused) {
  save_signals(example(), path("s.gguf"), false);
  write_header(path("s.gguf"), path("bare.gguf"), [](gguf::Metadata&) {});
  EXPECT_THAT(refusal([&] { load_signals(path("bare.gguf")); }),
              AllOf(HasSubstr("damaged signals file"), HasSubstr(".h is missing")));
  write_header(path("s.gguf"), path("list.gguf"),
               [](gguf::Metadata& m) { m.erase("spectralquant.signals.h_of"); });
  EXPECT_THAT(refusal([&] { load_signals(path("list.gguf")); }), HasSubstr("list of matrices"));
  write_header(path("s.gguf"), path("version.gguf"), [](gguf::Metadata& m) {
    m.set("spectralquant.signals.version", gguf::Value::of_u32(9));
  });
  EXPECT_THAT(refusal([&] { load_signals(path("version.gguf")); }), HasSubstr("format version 9"));
}

TEST_F(SignalsTest, OfAnotherModelDoNotFit) {
  const Signals signals = example();
  const auto why = [&](const char* name, std::uint64_t rows, std::uint64_t cols) {
    const gguf::Tensor tensor{name, gguf::Type::F32, 2, {cols, rows, 1, 1}, nullptr, 0};
    return refusal([&] { require_fit(signals, gguf::matrices_of(tensor), "s.gguf"); });
  };
  EXPECT_EQ(why("blk.0.attn_q.weight", 4, 8), "");
  EXPECT_EQ(why("token_embd.weight", 5, 8), "");
  EXPECT_THAT(why("blk.1.attn_q.weight", 4, 8),
              AllOf(HasSubstr("no signal for blk.1.attn_q.weight"),
                    HasSubstr("gathered on this model"), HasSubstr("s.gguf")));
  EXPECT_THAT(why("blk.0.attn_q.weight", 4, 16), HasSubstr("has size 8, the model needs 16"));
  EXPECT_THAT(why("blk.0.attn_q.weight", 5, 8), HasSubstr("G of blk.0.attn_q.weight"));
  EXPECT_THAT(why("token_embd.weight", 6, 8), HasSubstr("token frequency"));
}

TEST_F(SignalsTest, AnImatrixKeepsTheDiagonal) {
  const Signals before = example();
  save_imatrix(before, path("im.gguf"), 512, false);
  const Signals after = load_imatrix(path("im.gguf"));
  EXPECT_TRUE(after.diagonal_only);
  EXPECT_EQ(after.n_tokens, 12345);
  EXPECT_EQ(after.description, "imatrix: text.txt+self:512");
  EXPECT_EQ(after.matrices.size(), 6u);  // the one that is only looked up has none
  for (const auto& [name, signal] : after.matrices) {
    EXPECT_LT(relative(signal.h, before.matrices.at(name).h.diagonal()), 1e-6) << name;
    // the very numbers llama-quantize will see
    EXPECT_TRUE(torch::equal(signal.h, importance(before, name))) << name;
    EXPECT_TRUE(torch::equal(signal.h, importance(after, name))) << name;
  }
  EXPECT_FALSE(importance(before, "looked_up.weight").defined());
  EXPECT_FALSE(importance(before, "absent").defined());
}

TEST_F(SignalsTest, AnImatrixOfExpertsHasARowForEach) {
  gguf::Metadata metadata;
  metadata.set("general.type", gguf::Value::of_string("imatrix"));
  gguf::TensorPlan sums{"exps.weight.in_sum2", gguf::Type::F32, 2, {4, 2, 1, 1}},
      counts{"exps.weight.counts", gguf::Type::F32, 2, {1, 2, 1, 1}};
  gguf::Writer writer(path("im.gguf"), metadata, {sums, counts});
  const float values[8] = {2, 4, 6, 8, 0, 0, 0, 0}, n[2] = {2, 0};
  writer.write(0, 0, values, sizeof values);
  writer.write(1, 0, n, sizeof n);
  writer.commit();
  const auto matrices = load_imatrix(path("im.gguf")).matrices;
  ASSERT_EQ(matrices.size(), 2u);
  const MatrixSignal &first = matrices.at({"exps.weight", 0}),
                     &second = matrices.at({"exps.weight", 1});
  EXPECT_TRUE(torch::equal(first.h, torch::tensor({1.f, 2.f, 3.f, 4.f})));
  EXPECT_EQ(first.n_tokens, 2);
  // no token reached the second
  EXPECT_TRUE(torch::equal(second.h, torch::ones({4})));
  EXPECT_EQ(second.n_tokens, 0);
}

TEST_F(SignalsTest, ADamagedImatrixIsRefused) {
  gguf::Metadata metadata;
  metadata.set("general.type", gguf::Value::of_string("imatrix"));
  gguf::Writer(path("empty.gguf"), metadata, {}).commit();
  EXPECT_THAT(refusal([&] { load_imatrix(path("empty.gguf")); }), HasSubstr("empty"));
  const float nan = std::nanf("");
  gguf::Writer alone(path("alone.gguf"), metadata,
                     {{"a.weight.in_sum2", gguf::Type::F32, 1, {1, 1, 1, 1}}});
  alone.write(0, 0, &nan, 4);
  alone.commit();
  EXPECT_THAT(refusal([&] { load_imatrix(path("alone.gguf")); }), HasSubstr("a.weight.counts"));
  gguf::Writer bad(path("bad.gguf"), metadata,
                   {{"a.weight.in_sum2", gguf::Type::F32, 1, {1, 1, 1, 1}},
                    {"a.weight.counts", gguf::Type::F32, 1, {1, 1, 1, 1}}});
  const float one = 1;
  bad.write(0, 0, &nan, 4);
  bad.write(1, 0, &one, 4);
  bad.commit();
  EXPECT_THAT(refusal([&] { load_imatrix(path("bad.gguf")); }), HasSubstr("NaN"));
}

/// A GGUF of F32 lists under an imatrix's metadata.
using Lists = std::vector<std::pair<std::string, std::vector<float>>>;
void write_imatrix(const std::string& path, const Lists& lists, gguf::Type type = gguf::Type::F32) {
  gguf::Metadata metadata;
  metadata.set("general.type", gguf::Value::of_string("imatrix"));
  std::vector<gguf::TensorPlan> plans;
  for (const auto& [name, values] : lists)
    plans.push_back({name, type, 1, {values.size(), 1, 1, 1}});
  gguf::WriteOptions options;
  options.overwrite = true;
  gguf::Writer writer(path, metadata, plans, options);
  for (std::size_t i = 0; i < lists.size(); ++i)
    writer.write(i, 0, lists[i].second.data(), plans[i].size_bytes());
  writer.commit();
}

TEST_F(SignalsTest, ErrorsOfAnImatrixNameFileAndTensor) {
  const float nan = std::nanf("");
  const std::vector<std::pair<Lists, std::string>> cases = {
      {{{"a.weight.counts", {1}}}, "a.weight.in_sum2 is missing beside a.weight.counts"},
      {{{"a.weight.in_sum2", {1, 2}}}, "a.weight.counts is missing beside a.weight.in_sum2"},
      {{{"a.weight.in_sum2", {1, 2, 3}}, {"a.weight.counts", {1, 1}}}, "do not divide"},
      {{{"a.weight.in_sum2", {1, 2}}, {"a.weight.counts", {-1}}}, "a.weight.counts is negative"},
      {{{"a.weight.in_sum2", {1, 2}}, {"a.weight.counts", {nan}}}, "a.weight.counts holds NaN"},
      {{{"a.weight.in_sum2", {1, 2, 3, -4}}, {"a.weight.counts", {1, 1}}},
       "a.weight.in_sum2 is negative (matrix 1, value 1)"},
      {{{"a.weight.in_sum2", {1, 2, nan, 4}}, {"a.weight.counts", {1, 1}}},
       "a.weight.in_sum2 holds NaN or infinity (matrix 1, value 0)"},
  };
  for (const auto& [lists, problem] : cases) {
    write_imatrix(path("im.gguf"), lists);
    EXPECT_THAT(refusal([&] { load_imatrix(path("im.gguf")); }),
                AllOf(HasSubstr(problem), HasSubstr("im.gguf"), HasSubstr("llama-imatrix")));
  }
  write_imatrix(path("im.gguf"), {{"a.weight.in_sum2", {1, 2}}, {"a.weight.counts", {1, 1}}},
                gguf::Type::F16);
  EXPECT_THAT(refusal([&] { load_imatrix(path("im.gguf")); }),
              HasSubstr("a.weight.counts is F16, not F32"));
  // what lies in a row that no token reached does not count
  write_imatrix(path("im.gguf"),
                {{"a.weight.in_sum2", {4, 2, nan, -1}}, {"a.weight.counts", {2, 0.3f}}});
  EXPECT_TRUE(torch::equal(load_imatrix(path("im.gguf")).matrices.at({"a.weight", 0}).h,
                           torch::tensor({2.f, 1.f})));
}

TEST_F(SignalsTest, MatricesThatNoInputReachesAreNamed) {
  write_imatrix(path("im.gguf"), {{"a.weight.in_sum2", {0, 0}},
                                  {"a.weight.counts", {3}},
                                  {"b.weight.in_sum2", {0, 3}},
                                  {"b.weight.counts", {3}},
                                  {"exps.weight.in_sum2", {0, 0, 6, 0, 0, 0}},
                                  {"exps.weight.counts", {3, 3, 3}}});
  const Signals signals = load_imatrix(path("im.gguf"));
  EXPECT_THAT(without_importance(signals),
              ::testing::ElementsAre("a.weight", "exps.weight (2 of its 3 matrices)"));
  EXPECT_TRUE(torch::equal(importance(signals, "a.weight"), torch::ones({2})));
  EXPECT_TRUE(torch::equal(importance(signals, "b.weight"), torch::tensor({0.f, 1.f})));
  EXPECT_TRUE(torch::equal(importance(signals, {"exps.weight", 0}), torch::ones({2})));
  EXPECT_TRUE(torch::equal(importance(signals, {"exps.weight", 1}), torch::tensor({2.f, 0.f})));
  // llama-quantize must see the same: a count of 0 stands for columns that count alike
  Signals own = example();
  own.matrices["dead.weight"].h = torch::zeros({8, 8});
  save_imatrix(own, path("own.gguf"), 512, false);
  const gguf::File file = gguf::File::open(path("own.gguf"));
  EXPECT_EQ(read_tensor(file.require("dead.weight.counts")).item<float>(), 0);
  EXPECT_TRUE(torch::equal(load_imatrix(path("own.gguf")).matrices.at("dead.weight").h,
                           importance(own, "dead.weight")));
}

TEST_F(SignalsTest, ErrorsOfSignalsNameFileAndTensor) {
  const auto broken = [&](const std::function<void(Signals&)>& edit) {
    Signals signals = example();
    edit(signals);
    save_signals(signals, path("s.gguf"), true);
    return refusal([&] { load_signals(path("s.gguf")); });
  };
  const std::string name = "blk.0.ffn_down.weight";
  EXPECT_THAT(broken([&](Signals& s) { s.matrices[name].h[1][2] = NAN; }),
              AllOf(HasSubstr(name + ".h holds NaN or infinity at value 8"), HasSubstr("s.gguf")));
  EXPECT_THAT(broken([&](Signals& s) { s.matrices[name].h[3][3] = -1; }),
              HasSubstr(name + ".h is negative at row 3"));
  EXPECT_THAT(broken([&](Signals& s) {
                s.matrices[name].h = torch::ones({6, 5});
              }),
              HasSubstr(name + ".h is not square"));
  EXPECT_THAT(broken([&](Signals& s) { s.matrices[name].g[0][0] = INFINITY; }),
              HasSubstr(name + ".g holds NaN"));
  EXPECT_THAT(broken([&](Signals& s) { s.matrices["large_head.weight"].g[2] = -1; }),
              HasSubstr("large_head.weight.g is negative at value 2"));
  EXPECT_THAT(broken([&](Signals& s) { s.matrices["looked_up.weight"].frequency[1] = -1; }),
              HasSubstr("looked_up.weight.frequency is negative"));
  EXPECT_THAT(broken([&](Signals& s) { s.matrices["looked_up.weight"].c[4][4] = -1; }),
              HasSubstr("looked_up.weight.c is negative at row 4"));
  EXPECT_THAT(broken([](Signals& s) { s.n_tokens = -3; }), HasSubstr("s.gguf"));
  std::ofstream(path("text")) << "no signals at all";
  EXPECT_THAT(refusal([&] { is_imatrix(path("text")); }),
              AllOf(HasSubstr("neither a signals file nor an importance matrix"),
                    HasSubstr("spectralquant calibrate")));
}

/// A file with one tensor of zeros.
gguf::File file_of(const std::string& path, const std::array<std::uint64_t, 4>& shape) {
  gguf::TensorPlan plan{"exps.weight", gguf::Type::F32, 3, shape};
  gguf::WriteOptions options;
  options.overwrite = true;
  gguf::Writer writer(path, {}, {plan}, options);
  writer.write(0, 0, std::vector<float>(plan.size_bytes() / 4).data(), plan.size_bytes());
  writer.commit();
  return gguf::File::open(path);
}

TEST_F(SignalsTest, StacksFitByTheirNumber) {
  const auto why = [&](const Signals& signals, std::uint64_t n_matrices) {
    const gguf::File file = file_of(path("model.gguf"), {4, 2, n_matrices, 1});
    Signals split = signals;
    split_rows(split, file);
    return refusal([&] { require_fit(split, gguf::matrices_of(file.tensors()[0]), ""); });
  };
  Signals signals;
  signals.diagonal_only = true;
  for (std::int64_t i = 0; i < 3; ++i)
    signals.matrices[{"exps.weight", i}].h = torch::full({4}, static_cast<float>(i));
  EXPECT_EQ(why(signals, 3), "");
  EXPECT_THAT(why(signals, 5), HasSubstr("of 3 matrices, the model has 5"));
  Signals one_row;  // the older form
  one_row.diagonal_only = true;
  one_row.matrices["exps.weight"].h = torch::arange(12.f);
  EXPECT_EQ(why(one_row, 3), "");
  EXPECT_THAT(why(one_row, 2), HasSubstr("of 1 matrices, the model has 2"));
  split_rows(one_row, file_of(path("model.gguf"), {4, 2, 3, 1}));
  EXPECT_TRUE(torch::equal(one_row.matrices.at({"exps.weight", 2}).h,
                           torch::tensor({8.f, 9.f, 10.f, 11.f})));
}

TEST_F(SignalsTest, ExpertsAreKeptAndGoIntoOneEntryOfAnImatrix) {
  Signals signals;
  signals.n_tokens = 6;
  for (std::int64_t i = 0; i < 3; ++i) {
    MatrixSignal& signal = signals.matrices[{"exps.weight", i}];
    signal.h = torch::eye(4) * static_cast<float>(i + 1);
    signal.n_tokens = 4 * i;  // the first got none: it has the mean of the others
  }
  save_signals(signals, path("s.gguf"), false);
  const Signals after = load_signals(path("s.gguf"));
  ASSERT_EQ(after.matrices.size(), 3u);
  EXPECT_TRUE(torch::equal(after.matrices.at({"exps.weight", 2}).h, 3 * torch::eye(4)));
  EXPECT_EQ(after.matrices.at({"exps.weight", 2}).n_tokens, 8);
  const auto idle = find_idle_experts(after);
  ASSERT_EQ(idle.size(), 1u);
  EXPECT_EQ(idle[0].name, "exps.weight");
  EXPECT_EQ(idle[0].n_idle, 1);
  EXPECT_EQ(idle[0].n_experts, 3);

  save_imatrix(after, path("im.gguf"), 512, false);
  const gguf::File file = gguf::File::open(path("im.gguf"));
  const torch::Tensor counts = read_tensor(file.require("exps.weight.counts")),
                      sums = read_tensor(file.require("exps.weight.in_sum2"));
  EXPECT_TRUE(torch::equal(counts, torch::tensor({{1.f}, {4.f}, {8.f}})));
  EXPECT_TRUE(torch::equal(sums[2], torch::full({4}, 24.f)));
  const Signals loaded = load_imatrix(path("im.gguf"));
  for (const auto& [id, signal] : loaded.matrices)
    EXPECT_TRUE(torch::equal(signal.h, importance(after, id))) << id;
}

TEST_F(SignalsTest, TheOldImatrixFormatIsRefusedByName) {
  std::ofstream out(path("old.dat"), std::ios::binary);
  const std::string name = "blk.0.attn_gate.weight";
  const std::int32_t n_entries = 1, length = static_cast<std::int32_t>(name.size());
  out.write(reinterpret_cast<const char*>(&n_entries), 4)
          .write(reinterpret_cast<const char*>(&length), 4)
      << name << std::string(100, '\1');
  out.close();
  for (const auto& read : std::vector<std::function<void()>>{
           [&] { load_imatrix(path("old.dat")); }, [&] { is_imatrix(path("old.dat")); }}) {
    EXPECT_THAT(refusal(read), AllOf(HasSubstr("old format"), HasSubstr("--output-format gguf")));
  }
}

}  // namespace
}  // namespace spectralquant::calibrate
