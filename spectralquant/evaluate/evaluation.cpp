#include "spectralquant/evaluate/evaluation.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <set>

#include "spectralquant/core/error.h"
#include "spectralquant/core/warning.h"
#include "spectralquant/evaluate/comparable.h"
#include "spectralquant/evaluate/file_facts.h"
#include "spectralquant/evaluate/names.h"
#include "spectralquant/gguf/loadable.h"

namespace spectralquant::evaluate {
namespace {

[[noreturn]] void refuse(const std::string& problem, const char* option, const std::string& fix) {
  throw Error(ErrorCode::kBadUsage, problem, option, fix);
}

void require_distinct(const std::vector<std::string>& all, const char* what, const char* option) {
  std::set<std::string> seen;
  for (const auto& one : all)
    if (!seen.insert(one).second)
      refuse(fmt::format("{} '{}' is given twice", what, one), option, "give each one once");
}

/// Refuses what contradicts itself, before a file is opened.
void check(const EvaluationRequest& request) {
  const bool stored = !request.reference_logits.empty();
  if (stored && !request.reference.empty())
    refuse("two originals are given", "--reference, --reference-logits", "give one of them");
  if (!stored && request.reference.empty())
    refuse("no original to compare with", "--reference",
           "give --reference FILE, or --reference-logits FILE");
  if (stored && request.candidates.empty())
    refuse("no file to score", "--reference-logits", "give one or more GGUF files");
  const std::pair<bool, const char*> need_model[] = {{!request.suites.empty(), "--suite"},
                                                     {!request.choices.empty(), "--choices"},
                                                     {request.continue_tokens > 0, "--continue"},
                                                     {request.details, "--details"}};
  for (const auto& [given, option] : need_model)
    if (stored && given)
      refuse("stored predictions are of one text, and there is no original to run", option,
             "leave it out, or give --reference FILE in place of --reference-logits");
  std::vector<std::string> files, suites, choices;
  for (const auto& path : request.candidates)
    files.push_back(std::filesystem::path(path).lexically_normal().string());
  for (const auto& spec : request.suites) suites.push_back(spec.name);
  for (const auto& text : request.choices) choices.push_back(text.substr(0, text.find('=')));
  require_distinct(files, "file", "candidates");
  require_distinct(suites, "suite name", "--suite");
  require_distinct(choices, "suite name", "--choices");
}

std::optional<StoredLogits> open_stored(const EvaluationRequest& request) {
  if (request.reference_logits.empty()) return std::nullopt;
  return StoredLogits::open(request.reference_logits);
}

/// The original first, if it is a file.
std::vector<gguf::File> open_files(const EvaluationRequest& request) {
  check(request);
  std::vector<gguf::File> files;
  if (!request.reference.empty()) files.push_back(gguf::File::open(request.reference));
  for (const auto& path : request.candidates) files.push_back(gguf::File::open(path));
  return files;
}

bool is_finite(const Positions& positions) {
  const auto all = [](const std::vector<float>& values) {
    return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
  };
  return all(positions.loss) && all(positions.kld);
}

/// The job: what is opened, what is known, and the result that grows.
class Job {
 public:
  Job(const EvaluationRequest& request, const Progress& progress);
  Evaluation run();

 private:
  void load_texts();
  void make_rows();
  void note_tokenizers(const std::vector<std::string>& names);
  void note_refusals(const std::vector<std::string>& names);
  void run_model(std::size_t row);
  void check_numbers(std::size_t row);
  void write_on(std::size_t row, const Progress& progress);
  void look(std::size_t row, const Progress& progress);
  void summarize_rows();
  void judge();
  std::vector<std::vector<Seen>> measure_overlap();
  void compare_written();
  void answer();
  Progress progress_of(std::size_t row) const;

  const EvaluationRequest& request_;
  const Progress& progress_;
  std::vector<gguf::File> files_;       ///< the original first, if it is a file; as given
  std::optional<StoredLogits> stored_;  ///< what stands for it, if it is not
  std::vector<Row> rows_;               ///< sorted
  std::optional<std::size_t> baseline_, control_;   ///< rows
  std::vector<std::unique_ptr<Subject>> subjects_;  ///< by row; null for a stored original
  text::Tokenizer tokenizer_;
  text::ChatFormat chat_;
  std::vector<CalibrationText> texts_;
  std::vector<ChoiceSuite> choices_;
  std::vector<std::vector<Positions>> positions_;  ///< by row, by suite
  std::vector<std::vector<bool>> finite_;          ///< the same: are all predictions numbers?
  /// by row, by multiple-choice suite
  std::vector<std::vector<Positions>> choice_positions_;
  std::vector<Prompts> prompts_;  ///< by suite
  /// by row, by suite, by prompt
  std::vector<std::vector<std::vector<std::vector<text::TokenId>>>> written_;
  Cache cache_;
  std::optional<Scorer> scorer_;
  Evaluation out_;
};

Job::Job(const EvaluationRequest& request, const Progress& progress)
    : request_(request),
      progress_(progress),
      files_(open_files(request)),
      stored_(open_stored(request)),
      tokenizer_(text::Tokenizer::from_metadata(files_[0].metadata())),
      chat_(text::ChatFormat::from_metadata(files_[0].metadata())),
      cache_(request.cache_folder) {
  make_rows();
  load_texts();
  if (stored_)
    scorer_.emplace(*stored_, cache_, request.options);
  else
    scorer_.emplace(*subjects_[0], cache_, request.options);
}

void Job::make_rows() {
  // As given, the original first.
  std::vector<Row> unsorted;
  if (stored_) {
    Row row;
    row.path = stored_->path();
    row.hash = stored_->hash();
    row.is_stored = true;
    unsorted.push_back(row);
  }
  for (const auto& file : files_) unsorted.push_back(describe(file));
  unsorted[0].is_reference = true;
  std::vector<std::string> paths;
  for (const auto& row : unsorted) paths.push_back(row.path);
  const auto names = shortest_names(paths);
  for (std::size_t i = 0; i < names.size(); ++i) unsorted[i].name = names[i];
  std::vector<std::size_t> order(unsorted.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](auto a, auto b) { return comes_before(unsorted[a], unsorted[b]); });
  const auto row_of = [&](const std::string& text,
                          const char* option) -> std::optional<std::size_t> {
    if (text.empty()) return std::nullopt;
    const auto i = find_candidate(text, paths, names, option);
    return static_cast<std::size_t>(std::find(order.begin(), order.end(), i) - order.begin());
  };
  baseline_ = row_of(request_.baseline, "--baseline");
  control_ = row_of(request_.control, "--control");
  note_tokenizers(names);
  note_refusals(names);
  for (auto i : order) {
    rows_.push_back(unsorted[i]);
    const bool has_file = i > 0 || !stored_;
    subjects_.push_back(
        has_file ? std::make_unique<Subject>(files_[i - (stored_ ? 1 : 0)], request_.model)
                 : nullptr);
  }
}

/// Compares with the first file: the original, or for stored predictions the first candidate.
void Job::note_tokenizers(const std::vector<std::string>& names) {
  for (std::size_t f = 1; f < files_.size(); ++f) {
    const auto differences = compare_tokenizers(files_[0].metadata(), files_[f].metadata());
    if (differences.empty()) continue;
    out_.notes.push_back({names[f + (stored_ ? 1 : 0)], "",
                          fmt::format("{}. All files are scored on the same tokens.",
                                      fmt::join(differences, "; "))});
  }
}

/// Files that can be scored here, but that llama.cpp does not load.
void Job::note_refusals(const std::vector<std::string>& names) {
  for (std::size_t f = 0; f < files_.size(); ++f) {
    const auto refusals = gguf::load_refusals(files_[f]);
    if (refusals.empty()) continue;
    const std::size_t n_more = refusals.size() - 1;
    out_.notes.push_back(
        {names[f + (stored_ ? 1 : 0)], "",
         fmt::format("llama.cpp does not load this file: {}{}.", refusals.front(),
                     n_more > 0 ? fmt::format("; and {} more such problems", n_more) : "")});
  }
}

void Job::load_texts() {
  for (const auto& pattern : request_.calibration_texts)
    texts_.push_back({pattern, text::load_corpus({pattern}, chat_)});
  for (const auto& spec : request_.suites)
    out_.suites.push_back(load_suite(spec, tokenizer_, chat_));
  for (const auto& text : texts_)
    for (const auto& note : text.corpus.notes) warn(progress_, note);
  for (const auto& suite : out_.suites)
    for (const auto& note : suite.notes) warn(progress_, note);
  if (stored_) {
    out_.suites.push_back(suite_of(*stored_, tokenizer_));
    out_.notes.push_back(
        {"", out_.suites[0].spec.name,
         "the original's log-probabilities are stored in 16 bits, in steps of up to "
         "0.00024 nats. They end 16 nats below the likeliest token: the loss of a "
         "less likely one is too low in the original's row."});
  }
  for (const auto& choice : request_.choices) choices_.push_back(load_choices(choice, tokenizer_));
  for (const auto& suite : out_.suites) {
    prompts_.push_back(take_prompts(suite));
    if (suite.n_unparsed_special > 0)
      out_.notes.push_back(
          {"", suite.spec.name,
           fmt::format(
               "the names of {} special tokens stand in its plain text and are read as "
               "letters, as llama-perplexity reads them; {}={}:{}+special makes them tokens.",
               suite.n_unparsed_special, suite.spec.name, suite.spec.pattern,
               suite.spec.protocol_text)});
  }
  for (std::size_t r = 0; r < rows_.size(); ++r)
    out_.calibrations.push_back(
        r == 0 ? CalibrationRecord{}
               : read_calibration(subjects_[r]->file().metadata(), texts_, tokenizer_));
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
  const auto progress = progress_of(row);
  const auto one = [&](const Suite& suite) {
    return row == 0 ? scorer_->of_reference(suite, progress)
                    : scorer_->of_candidate(*subjects_[row], suite, progress);
  };
  positions_.emplace_back();
  choice_positions_.emplace_back();
  for (const auto& suite : out_.suites) positions_[row].push_back(one(suite));
  for (const auto& choice : choices_) choice_positions_[row].push_back(one(choice.suite));
  check_numbers(row);
  write_on(row, progress);
  if (request_.details) look(row, progress);
  if (row > 0) subjects_[row]->unload();
}

/// Which figures are none. Without an original's there is nothing to compare with.
void Job::check_numbers(std::size_t row) {
  finite_.emplace_back();
  for (const auto& positions : positions_[row]) finite_[row].push_back(is_finite(positions));
  if (row > 0) {
    if (const auto place = first_not_finite(subjects_[row]->file(), cache_); !place.empty())
      out_.notes.push_back({rows_[row].name, "", "its weights are not finite: " + place + "."});
    return;
  }
  const auto require = [&](const Suite& suite, bool finite) {
    if (!finite)
      throw bad_input("the original's predictions are not finite",
                      suite.spec.name + " on " + rows_[0].path,
                      "convert the original again, as BF16 or F32");
  };
  for (std::size_t s = 0; s < out_.suites.size(); ++s) require(out_.suites[s], finite_[0][s]);
  for (std::size_t c = 0; c < choices_.size(); ++c)
    require(choices_[c].suite, is_finite(choice_positions_[0][c]));
}

void Job::write_on(std::size_t row, const Progress& progress) {
  written_.emplace_back();
  if (request_.continue_tokens < 1) return;
  for (std::size_t s = 0; s < prompts_.size(); ++s) {
    written_[row].emplace_back();
    if (finite_[row][s])
      written_[row][s] = continuations(*subjects_[row], prompts_[s], request_.continue_tokens,
                                       tokenizer_.eos(), cache_, progress);
  }
}

void Job::look(std::size_t row, const Progress& progress) {
  for (std::size_t s = 0; s < out_.suites.size(); ++s) {
    if (row == 0)
      out_.reference_losses.push_back(positions_[0][s].loss);
    else if (finite_[row][s])
      out_.looks.push_back(
          {s, row, positions_[row][s],
           look_closely(*subjects_[0], *subjects_[row], out_.suites[s], positions_[row][s], cache_,
                        request_.options, {}, progress)});
  }
}

void Job::summarize_rows() {
  auto& table = out_.table;
  if (baseline_) table.baseline = rows_[*baseline_].name;
  if (control_) out_.control = rows_[*control_].name;
  for (const auto& suite : out_.suites) {
    table.suites.push_back(suite.spec);
    table.suite_tokens.push_back(suite.n_scored);
    table.suite_units.push_back(suite.n_units);
    table.suite_hashes.push_back(suite.hash);
  }
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    rows_[r].is_baseline = baseline_ == r;
    for (std::size_t s = 0; s < out_.suites.size(); ++s) {
      rows_[r].scores.push_back(summarize(positions_[r][s], r == 0 ? nullptr : &positions_[0][s],
                                          r > 0 && baseline_ ? &positions_[*baseline_][s] : nullptr,
                                          request_.options));
    }
  }
  table.rows = rows_;
  for (std::size_t s = 0; s < out_.suites.size(); ++s)
    for (std::size_t a = 1; a < rows_.size(); ++a)
      for (std::size_t b = a + 1; b < rows_.size(); ++b)
        if (finite_[a][s] && finite_[b][s])
          out_.pairs.push_back(
              {s, a, b, compare_pair(positions_[a][s], positions_[b][s], request_.options)});
}

/// How far each calibration text was seen, by text, by suite.
std::vector<std::vector<Seen>> Job::measure_overlap() {
  std::vector<std::vector<Passage>> suites;
  for (const auto& suite : out_.suites) suites.push_back(passages_of(suite, tokenizer_));
  std::vector<std::vector<Seen>> seen;
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
  return seen;
}

void Job::judge() {
  const auto seen = measure_overlap();
  const auto closest = [&](std::size_t s,
                           const std::vector<std::size_t>& texts) -> std::optional<Seen> {
    std::optional<Seen> best;
    for (auto t : texts) best = std::min(best.value_or(Seen::kNever), seen[t][s]);
    return best;
  };
  std::vector<std::size_t> all(texts_.size());
  std::iota(all.begin(), all.end(), 0);
  for (std::size_t s = 0; s < out_.suites.size(); ++s)
    out_.table.suite_seen.push_back(closest(s, all));

  for (std::size_t r = 1; r < rows_.size(); ++r) {
    const auto& record = out_.calibrations[r];
    std::vector<AlignmentInput> inputs;
    for (std::size_t s = 0; s < out_.suites.size(); ++s) {
      if (!finite_[r][s]) continue;
      auto label = closest(s, record.texts);
      // Where it is known that no text was used, none was seen.
      if (record.used_no_text()) label = Seen::kNever;
      const bool has_control = control_ && control_ != r && finite_[*control_][s];
      inputs.push_back({out_.suites[s].spec.name, label, &positions_[0][s], &positions_[r][s],
                        has_control ? &positions_[*control_][s] : nullptr});
    }
    if (!inputs.empty()) out_.alignments.push_back({r, judge_alignment(inputs, request_.options)});
  }
}

void Job::compare_written() {
  constexpr std::size_t kExamples = 3;
  for (std::size_t s = 0; s < prompts_.size(); ++s) {
    for (std::size_t r = 1; r < rows_.size(); ++r) {
      if (written_[r].empty() || written_[r][s].empty()) continue;
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
