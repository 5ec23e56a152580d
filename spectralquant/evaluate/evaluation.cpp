#include "spectralquant/evaluate/evaluation.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "spectralquant/core/error.h"
#include "spectralquant/gguf/strict.h"

namespace spectralquant::evaluate {
namespace {

std::string stem_of(const std::string& path) { return std::filesystem::path(path).stem().string(); }

Row describe(const gguf::File& file) {
  const auto inventory = gguf::take_inventory(file);
  Row row;
  row.path = file.path();
  row.name = stem_of(file.path());
  row.hash = file.hash();
  row.size_bytes = inventory.file_bytes;
  row.file_bpw = inventory.file_bpw;
  row.matrix_bpw = inventory.matrix_bpw;
  row.strict = inventory.strict;
  for (const auto& [type, part] : inventory.types)
    row.types[std::string(gguf::traits(type).name)] = part.n_values;
  return row;
}

/// Two files of one name in different folders are told apart by their folder.
void make_names_unique(std::vector<Row>& rows) {
  std::map<std::string, int> n;
  for (const auto& row : rows) ++n[row.name];
  for (auto& row : rows)
    if (n[row.name] > 1)
      row.name = std::filesystem::path(row.path).parent_path().filename().string() + "/" + row.name;
}

void require_candidate(const EvaluationRequest& request, const std::string& name,
                       const char* option) {
  const auto fits = [&](const std::string& path) { return path == name || stem_of(path) == name; };
  if (name.empty() || std::any_of(request.candidates.begin(), request.candidates.end(), fits))
    return;
  throw Error(ErrorCode::kBadUsage, fmt::format("'{}' is none of the candidates", name), option,
              "give the file name of a candidate");
}

/// A candidate may leave out the tokenizer's words but must split text alike: token ids are
/// compared position by position.
void require_same_tokenizer(const text::Tokenizer& reference, const gguf::File& candidate) {
  if (text::Tokenizer::from_metadata(candidate.metadata()).hash() != reference.hash())
    throw bad_input("its tokenizer is not the reference's", candidate.path(),
                    "compare quantizations of one model only");
}

/// The job: what is opened, what is known, and the result that grows.
class Job {
 public:
  Job(const EvaluationRequest& request, const Progress& progress);
  Evaluation run();

 private:
  void load_texts();
  void make_rows();
  void run_model(std::size_t row);
  void summarize_rows();
  void judge();
  void compare_written();
  void answer();
  Progress progress_of(std::size_t row) const;
  std::optional<std::size_t> row_of(const std::string& name) const;

  const EvaluationRequest& request_;
  const Progress& progress_;
  std::vector<gguf::File> files_;                   ///< the reference first, as given
  std::vector<Row> rows_;                           ///< sorted
  std::vector<std::unique_ptr<Subject>> subjects_;  ///< by row
  text::Tokenizer tokenizer_;
  text::ChatFormat chat_;
  std::vector<CalibrationText> texts_;
  std::vector<ChoiceSuite> choices_;
  std::vector<std::vector<Positions>> positions_;  ///< by row, by suite
  /// by row, by multiple-choice suite
  std::vector<std::vector<Positions>> choice_positions_;
  std::vector<Prompts> prompts_;  ///< by suite
  /// by row, by suite, by prompt
  std::vector<std::vector<std::vector<std::vector<text::TokenId>>>> written_;
  Cache cache_;
  std::optional<Scorer> scorer_;
  Evaluation out_;
};

std::vector<gguf::File> open_files(const EvaluationRequest& request) {
  std::vector<gguf::File> files;
  files.push_back(gguf::File::open(request.reference));
  for (const auto& path : request.candidates) files.push_back(gguf::File::open(path));
  return files;
}

Job::Job(const EvaluationRequest& request, const Progress& progress)
    : request_(request),
      progress_(progress),
      files_(open_files(request)),
      tokenizer_(text::Tokenizer::from_metadata(files_[0].metadata())),
      chat_(text::ChatFormat::from_metadata(files_[0].metadata())),
      cache_(request.cache_folder) {
  require_candidate(request, request.baseline, "--baseline");
  require_candidate(request, request.control, "--control");
  for (std::size_t i = 1; i < files_.size(); ++i) require_same_tokenizer(tokenizer_, files_[i]);
  load_texts();
  make_rows();
  scorer_.emplace(*subjects_[0], cache_, request.options);
}

void Job::make_rows() {
  std::vector<Row> unsorted;
  for (const auto& file : files_) unsorted.push_back(describe(file));
  unsorted[0].is_reference = true;
  make_names_unique(unsorted);
  std::vector<std::size_t> order(unsorted.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return comes_before(unsorted[a], unsorted[b]); });
  for (auto i : order) {
    rows_.push_back(unsorted[i]);
    subjects_.push_back(std::make_unique<Subject>(files_[i], request_.model));
    out_.calibrations.push_back(
        i == 0 ? CalibrationRecord{} : read_calibration(files_[i].metadata(), texts_, tokenizer_));
  }
}

void Job::load_texts() {
  for (const auto& pattern : request_.calibration_texts)
    texts_.push_back({pattern, text::load_corpus({pattern}, chat_)});
  for (const auto& spec : request_.suites)
    out_.suites.push_back(load_suite(spec, tokenizer_, chat_));
  for (const auto& text : texts_)
    for (const auto& note : text.corpus.notes) report(progress_, {"note", note});
  for (const auto& suite : out_.suites)
    for (const auto& note : suite.notes) report(progress_, {"note", note});
  for (const auto& choice : request_.choices) choices_.push_back(load_choices(choice, tokenizer_));
  for (const auto& suite : out_.suites) prompts_.push_back(take_prompts(suite));
}

std::optional<std::size_t> Job::row_of(const std::string& name) const {
  for (std::size_t r = 1; r < rows_.size(); ++r)
    if (!name.empty() &&
        (rows_[r].path == name || rows_[r].name == name || stem_of(rows_[r].path) == name))
      return r;
  return std::nullopt;
}

/// Progress that also names the model.
Progress Job::progress_of(std::size_t row) const {
  return [this, row](ProgressEvent event) {
    const std::string item =
        event.item.empty() ? rows_[row].name : fmt::format("{} on {}", rows_[row].name, event.item);
    event.item = item;
    report(progress_, event);
  };
}

/// Everything that needs a model: one candidate is in memory at a time, and the reference.
void Job::run_model(std::size_t row) {
  auto& subject = *subjects_[row];
  const auto progress = progress_of(row);
  const auto one = [&](const Suite& suite) {
    return row == 0 ? scorer_->of_reference(suite, progress)
                    : scorer_->of_candidate(subject, suite, progress);
  };
  positions_.emplace_back();
  choice_positions_.emplace_back();
  written_.emplace_back();
  for (const auto& suite : out_.suites) positions_[row].push_back(one(suite));
  for (const auto& choice : choices_) choice_positions_[row].push_back(one(choice.suite));
  for (const auto& prompts : prompts_) {
    if (request_.continue_tokens < 1) break;
    written_[row].push_back(continuations(subject, prompts, request_.continue_tokens,
                                          tokenizer_.eos(), cache_, progress));
  }
  for (std::size_t s = 0; request_.details && s < out_.suites.size(); ++s) {
    if (row == 0)
      out_.reference_losses.push_back(positions_[0][s].loss);
    else
      out_.looks.push_back({s, row, positions_[row][s],
                            look_closely(*subjects_[0], subject, out_.suites[s], positions_[row][s],
                                         cache_, request_.options, {}, progress)});
  }
  if (row > 0) subject.unload();
}

void Job::summarize_rows() {
  const auto baseline = row_of(request_.baseline), control = row_of(request_.control);
  auto& table = out_.table;
  if (baseline) table.baseline = rows_[*baseline].name;
  if (control) out_.control = rows_[*control].name;
  for (const auto& suite : out_.suites) {
    table.suites.push_back(suite.spec);
    table.suite_tokens.push_back(suite.n_scored);
    table.suite_units.push_back(suite.n_units);
    table.suite_hashes.push_back(suite.hash);
  }
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    rows_[r].is_baseline = baseline == r;
    for (std::size_t s = 0; s < out_.suites.size(); ++s) {
      rows_[r].scores.push_back(summarize(positions_[r][s], r == 0 ? nullptr : &positions_[0][s],
                                          r > 0 && baseline ? &positions_[*baseline][s] : nullptr,
                                          request_.options));
    }
  }
  table.rows = rows_;
  for (std::size_t s = 0; s < out_.suites.size(); ++s)
    for (std::size_t a = 1; a < rows_.size(); ++a)
      for (std::size_t b = a + 1; b < rows_.size(); ++b)
        out_.pairs.push_back(
            {s, a, b, compare_pair(positions_[a][s], positions_[b][s], request_.options)});
}

void Job::judge() {
  std::vector<std::vector<Passage>> suites;
  for (const auto& suite : out_.suites) suites.push_back(passages_of(suite, tokenizer_));
  std::vector<std::vector<Seen>> seen;  // by text, by suite
  for (const auto& text : texts_) {
    out_.calibration_texts.push_back(text.pattern);
    const auto passages = passages_of(text.corpus, tokenizer_);
    seen.emplace_back();
    for (std::size_t s = 0; s < suites.size(); ++s) {
      out_.overlaps.push_back(
          find_overlap(text.pattern, passages, out_.suites[s].spec.name, suites[s]));
      seen.back().push_back(out_.overlaps.back().seen);
    }
  }
  const auto closest = [&](std::size_t s,
                           const std::vector<std::size_t>& texts) -> std::optional<Seen> {
    std::optional<Seen> best;
    for (auto t : texts) best = std::min(best.value_or(Seen::kNever), seen[t][s]);
    return best;
  };
  std::vector<std::size_t> all;
  for (std::size_t t = 0; t < texts_.size(); ++t) all.push_back(t);
  for (std::size_t s = 0; s < suites.size(); ++s) out_.table.suite_seen.push_back(closest(s, all));

  const auto control = row_of(request_.control);
  for (std::size_t r = 1; r < rows_.size(); ++r) {
    const auto& record = out_.calibrations[r];
    std::vector<AlignmentInput> inputs;
    for (std::size_t s = 0; s < suites.size(); ++s) {
      auto label = closest(s, record.texts);
      // Where it is known that no text was used, none was seen.
      if (record.used_no_text()) label = Seen::kNever;
      inputs.push_back({out_.suites[s].spec.name, label, &positions_[0][s], &positions_[r][s],
                        control && control != r ? &positions_[*control][s] : nullptr});
    }
    out_.alignments.push_back({r, judge_alignment(inputs, request_.options)});
  }
}

void Job::compare_written() {
  constexpr std::size_t kExamples = 3;
  for (std::size_t s = 0; s < prompts_.size(); ++s) {
    for (std::size_t r = 1; r < rows_.size(); ++r) {
      if (written_[r].empty() || prompts_[s].tokens.empty()) continue;
      const auto &reference = written_[0][s], &candidate = written_[r][s];
      Evaluation::Written entry{s,
                                r,
                                compare_continuations(reference, candidate),
                                prompts_[s].tokens.size(),
                                prompts_[s].tokens[0].size(),
                                request_.continue_tokens,
                                {}};
      for (std::size_t p = 0; p < std::min(kExamples, candidate.size()); ++p) {
        const auto same = static_cast<std::ptrdiff_t>(entry.prefixes.same[p]);
        const auto rest = [&](const std::vector<text::TokenId>& t) {
          return tokenizer_.decode({t.begin() + same, t.end()});
        };
        entry.examples.push_back(
            {tokenizer_.decode(prompts_[s].tokens[p]),
             tokenizer_.decode({candidate[p].begin(), candidate[p].begin() + same}),
             rest(reference[p]), rest(candidate[p]), same});
      }
      out_.continuations.push_back(std::move(entry));
    }
  }
}

void Job::answer() {
  for (std::size_t c = 0; c < choices_.size(); ++c) {
    const auto& spec = choices_[c].suite.spec;
    Evaluation::Choices entry{
        spec.name, spec.pattern, choices_[c].suite.hash, choices_[c].questions.size(), {}};
    for (std::size_t r = 0; r < rows_.size(); ++r)
      entry.scores.push_back(score_choices(choices_[c], choice_positions_[0][c],
                                           choice_positions_[r][c], request_.options));
    out_.choices.push_back(std::move(entry));
  }
}

Evaluation Job::run() {
  out_.options = request_.options;
  for (std::size_t row = 0; row < rows_.size(); ++row) run_model(row);
  summarize_rows();
  judge();
  compare_written();
  answer();
  out_.tokenizer.emplace(std::move(tokenizer_));
  out_.cache_problem = cache_.problem();
  return std::move(out_);
}

}  // namespace

Evaluation evaluate(const EvaluationRequest& request, const Progress& progress) {
  return Job(request, progress).run();
}

}  // namespace spectralquant::evaluate
