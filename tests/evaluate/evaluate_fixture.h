#pragma once
#include "pipeline/pipeline_fixture.h"
#include "spectralquant/evaluate/score.h"

namespace spectralquant::evaluate {

using pipeline::refusal;
using pipeline::slurp;
using pipeline::spew;

/// Suites from texts that the test writes, tokenized for the tiny model.
class SuiteFixture : public calibrate::FolderTest {
 protected:
  SuiteFixture() : metadata_(model::tiny::make_metadata({})) {}

  text::Tokenizer tokenizer() const { return text::Tokenizer::from_metadata(metadata_); }

  Suite load(const std::string& protocol, const std::string& file,
             std::int64_t max_document_tokens = 4096) const {
    const auto suffix = protocol.empty() ? "" : ":" + protocol;
    return load_suite(parse_suite("s=" + path(file) + suffix), tokenizer(),
                      text::ChatFormat::from_metadata(metadata_), max_document_tokens);
  }
  Suite load_text(const std::string& protocol, const std::string& text) const {
    spew(path("text.txt"), text);
    return load(protocol, "text.txt");
  }

  gguf::Metadata metadata_;
};

/// Tokens of a text as the tokenizer gives them, between two numbers of them.
inline std::vector<text::TokenId> part(const std::vector<text::TokenId>& tokens, std::size_t first,
                                       std::size_t last) {
  return {tokens.begin() + first, tokens.begin() + last};
}

}  // namespace spectralquant::evaluate
