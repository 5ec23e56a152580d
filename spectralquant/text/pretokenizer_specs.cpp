#include <algorithm>

#include "spectralquant/text/pretokenizer.h"

// The pre-tokenizers of llama.cpp, as patterns.
// Source: the models' tokenizer.json, and llama-vocab.cpp for names, order and flags.
namespace spectralquant::text {
namespace {

#define SQ_CONTRACTION "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define SQ_NEWLINES_AND_SPACES R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define SQ_LETTERS_AND(numbers)                          \
  SQ_CONTRACTION R"(|[^\r\n\p{L}\p{N}]?\p{L}+|)" numbers \
                 R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)" SQ_NEWLINES_AND_SPACES

constexpr std::string_view kGpt2 =
    R"('(?:[stmd]|re|ve|ll)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 = SQ_LETTERS_AND(R"(\p{N})");
constexpr std::string_view kQwen35 = SQ_CONTRACTION
    R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" SQ_NEWLINES_AND_SPACES;
constexpr std::string_view kLlama3 = SQ_LETTERS_AND(R"(\p{N}{1,3})");

constexpr std::string_view kDeepseekCjk =
    R"([\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";
constexpr std::string_view kDeepseekCoderCjk =
    R"([\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+)";
// DeepSeek LLM's letters: those with upper and lower case.
constexpr std::string_view kDeepseekLetters =
    R"(\s?[A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293})"
    R"(\x{295}-\x{2AF}\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386})"
    R"(\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F})"
    R"(\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA})"
    R"(\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15})"
    R"(\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B})"
    R"(\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4})"
    R"(\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4})"
    R"(\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124})"
    R"(\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F})"
    R"(\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4})"
    R"(\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F})"
    R"(\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17})"
    R"(\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3})"
    R"(\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF})"
    R"(\x{1E900}-\x{1E943}]+)";
constexpr std::string_view kDeepseekMarks =
    R"(\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+)";
// White space at the very end; its first character stands behind none.
constexpr std::string_view kSpacesAtEnd = R"((?<!\s)\s++\z)";
constexpr std::string_view kDeepseek =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)" SQ_NEWLINES_AND_SPACES;

// llama.cpp has no upper and lower case outside ASCII: such a letter (\p{A}) counts as both.
#define SQ_UPPER R"([A-Z\p{A}])"
#define SQ_LOWER R"([a-z\p{A}])"
#define SQ_CASED_WORDS(suffix)                                                               \
  R"([^\r\n\p{L}\p{N}]?)" SQ_UPPER "*" SQ_LOWER "+" suffix R"(|[^\r\n\p{L}\p{N}]?)" SQ_UPPER \
  "+" SQ_LOWER "*" suffix
constexpr std::string_view kTekken =
    SQ_CASED_WORDS("") R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" SQ_NEWLINES_AND_SPACES;
constexpr std::string_view kGpt4o = SQ_CASED_WORDS(
    "(?:" SQ_CONTRACTION ")?") R"(|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" SQ_NEWLINES_AND_SPACES;
// Marks count as letters of both cases, too.
constexpr std::string_view kGraniteMulti =
    R"([^\r\n\p{L}\p{N}]?[A-Z\p{A}\p{M}]*[a-z\p{A}\p{M}]+(?:)" SQ_CONTRACTION
    R"()?|[^\r\n\p{L}\p{N}]?[A-Z\p{A}\p{M}]+[a-z\p{A}\p{M}]*(?:)" SQ_CONTRACTION
    R"()?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" SQ_NEWLINES_AND_SPACES;
// All letters count as both cases.
#define SQ_CASELESS_WORDS(numbers)                                        \
  R"([^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?:)" SQ_CONTRACTION R"()?|)" numbers \
  R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*)" SQ_NEWLINES_AND_SPACES
constexpr std::string_view kTinyAya = SQ_CASELESS_WORDS(R"(\p{N}{1,3})");
constexpr std::string_view kYoutu = SQ_CASELESS_WORDS(R"(\p{N})");
constexpr std::string_view kYoutuScripts =
    R"([\x{AC00}-\x{D7A3}\x{3131}-\x{318E}]+)"
    R"(|[\x{FF01}\x{2026}\x{201C}\x{201D}\x{2018}\x{2019}\x{2014}\x{FF1A}\x{FF1B}\x{FF0C})"
    R"(\x{3001}-\x{303F}\x{FE30}-\x{FE4F}]+)"
    R"(|[\x{3105}-\x{312F}]+|[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+)";
#define SQ_HAN                                                                                    \
  R"([\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2EBEF}\x{F900}-\x{FAFF})" \
  R"(\x{2F800}-\x{2FA1F}])"
constexpr std::string_view kKimiK2 =
    SQ_HAN R"(+|[^\r\n\p{L}\p{N}]?(?:(?!)" SQ_HAN R"()\p{L})+(?:)" SQ_CONTRACTION
           R"()?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)" SQ_NEWLINES_AND_SPACES;
// Long s counts as s.
constexpr std::string_view kK2Horizon =
    R"('[\x{17F}]|)" SQ_CONTRACTION
    R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}\x{200C}\x{200D}]+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)" SQ_NEWLINES_AND_SPACES;
constexpr std::string_view kMinicpm5 = SQ_LETTERS_AND(R"(\p{N}+)");
constexpr std::string_view kUfakzeka =
    R"([^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)" SQ_NEWLINES_AND_SPACES;
constexpr std::string_view kSpark =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kJais2 = SQ_CONTRACTION
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1})";
// Words go on over single spaces. Possessive: nothing follows that could ask for less.
constexpr std::string_view kExaoneMoe = SQ_CONTRACTION
    R"(|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*+(?: \p{L}\p{M}*+)*+)++|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)";
constexpr std::string_view kBloom =
    R"( ?[^(\s|.,!?)\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C}]+)";
constexpr std::string_view kLines = R"([^\n]+|[\n]+)";

// Digits in threes, counted from the right. Written so that a run is counted once, at its first
// digit, not at each.
constexpr std::string_view kSuperbpeDigits =
    R"((?<!\d)(?:\d{1,2}\K)?(?=(?:\d{3})++(?!\d))|\G\d{3}\K(?=\d))";
// What stands before a number goes with its first digits.
constexpr std::string_view kDigitsInThrees =
    R"([^\p{N}]*+(?:(?<!\p{N})\p{N}{1,2}(?=(?:\p{N}{3})*+(?!\p{N}))|\p{N}{3}|\z))";
constexpr std::string_view kAfmoeScripts =
    R"([\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{8C48}-\x{FAFF}\x{3040}-\x{30FF}\x{FF65}-\x{FF9F})"
    R"(\x{2F00}-\x{2FDF}\x{E40}-\x{EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F})"
    R"(\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+)";

constexpr std::string_view kSeedCoder = SQ_CONTRACTION
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+)" SQ_NEWLINES_AND_SPACES;
constexpr std::string_view kBailing = SQ_CONTRACTION
    R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)";

using Specs = std::vector<PretokenizerSpec>;

void add_qwen_and_llama(Specs& all) {
  all.push_back({"qwen2",
                 {"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan",
                  "solar-open", "grok-2"},
                 {kQwen2}});
  all.push_back({"qwen35", {"qwen35"}, {kQwen35}});
  all.push_back({.name = "llama-bpe",
                 .names = {"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral",
                           "midm-2.0", "lfm2", "jina-v5-nano"},
                 .patterns = {kLlama3},
                 .ignore_merges = true,
                 .add_bos = true});
  all.push_back({"dbrx", {"dbrx", "smaug-bpe"}, {kLlama3}});
  all.push_back({.name = "chatglm-bpe",
                 .names = {"chatglm-bpe"},
                 .patterns = {kLlama3},
                 .has_default_bos = false});
  all.push_back({.name = "glm4",
                 .names = {"glm4", "glm5"},
                 .patterns = {kLlama3},
                 .ignore_merges = true,
                 .has_default_bos = false});
  all.push_back({.name = "minicpm5",
                 .names = {"minicpm5"},
                 .patterns = {R"(\p{N}{1,3})", kMinicpm5},
                 .ignore_merges = true});
  all.push_back({"ufakzeka", {"ufakzeka"}, {kUfakzeka}});
  all.push_back({"laguna", {"laguna"}, {kLines, kQwen2}});
  all.push_back({"jais-2", {"jais-2"}, {kJais2}});
  all.push_back({"seed-coder", {"seed-coder"}, {kSeedCoder}});
  all.push_back({"bailingmoe", {"bailingmoe", "bailingmoe2", "llada-moe"}, {kBailing}});
  all.push_back({"exaone-moe", {"exaone-moe"}, {kExaoneMoe}});
  all.push_back({"k2-horizon", {"k2-horizon"}, {kK2Horizon}});
  all.push_back(
      {.name = "kimi-k2", .names = {"kimi-k2"}, .patterns = {kKimiK2}, .needs_merges = false});
}

void add_gpt2(Specs& all) {
  all.push_back({"gpt-2",
                 {"gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "mpt", "olmo", "jais",
                  "trillion", "granite-docling", "exaone4", "jina-v1-en", "jina-v2-code",
                  "jina-v2-de", "jina-v2-es", "jina-de", "jina-es", "modern-bert", "roberta-bpe"},
                 {kGpt2}});
  all.push_back({"smollm",
                 {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
                  "mellum2"},
                 {R"(\p{N})", kGpt2}});
  all.push_back(
      {"default", {"default"}, {R"([\p{P}$+<=>\^~|]+)", kGpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}});
  all.push_back({"falcon", {"falcon"}, {R"([\p{P}$+<=>\^~|`]+)", kGpt2, "[0-9][0-9][0-9]"}});
  all.push_back({.name = "chameleon",
                 .names = {"chameleon"},
                 .patterns = {"<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", R"([\t\n]|    |  )",
                              R"(\p{N})", R"([\p{P}!-/:-@\[-`{-~])", kGpt2},
                 .add_bos = true});
}

void add_deepseek(Specs& all) {
  all.push_back({"deepseek-v3",
                 {"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"},
                 {R"(\p{N}{1,3})", kDeepseekCjk, kDeepseek}});
  all.push_back({"deepseek-llm",
                 {"deepseek-llm"},
                 {R"([\r\n])", kDeepseekLetters, kDeepseekMarks, kSpacesAtEnd, kDeepseekCoderCjk,
                  R"(\p{N}+)"}});
  all.push_back({"deepseek-coder",
                 {"deepseek-coder"},
                 {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kDeepseekCoderCjk, R"(\p{N})"}});
  all.push_back({"spark2_5", {"spark2_5"}, {R"(\p{N}{1,3})", kDeepseekCjk, kSpark, R"(\p{N})"}});
  all.push_back({"afmoe", {"afmoe"}, {kDigitsInThrees, kAfmoeScripts, kDeepseek}});
}

/// Words of upper and lower case.
void add_cased(Specs& all) {
  all.push_back({.name = "tekken",
                 .names = {"tekken"},
                 .patterns = {kTekken},
                 .ignore_merges = true,
                 .add_bos = true});
  all.push_back({"gpt-4o", {"gpt-4o", "llama4", "kanana2", "minimax-m2", "talkie"}, {kGpt4o}});
  all.push_back({.name = "granite-embed-multi-97m",
                 .names = {"granite-embed-multi-97m"},
                 .patterns = {kGraniteMulti},
                 .ignore_merges = true});
  all.push_back({"tiny_aya", {"tiny_aya", "cohere2moe"}, {kDigitsInThrees, kTinyAya}});
  all.push_back({.name = "youtu",
                 .names = {"youtu"},
                 .patterns = {kYoutuScripts, kYoutu},
                 .ignore_merges = true});
}

void add_others(Specs& all) {
  all.push_back({"bloom", {"bloom", "poro-chat", "gpt3-finnish"}, {kBloom}});
  all.push_back({"viking", {"viking"}, {kBloom, R"(\p{N})"}});
  all.push_back({"superbpe", {"superbpe"}, {R"(\p{N}+)", kSuperbpeDigits}});
  // Only lines are cut: merges go over spaces.
  all.push_back({.name = "gemma4",
                 .names = {"gemma4", "granite-embed-multi-311m"},
                 .patterns = {kLines},
                 .add_bos = true,
                 .always_adds_bos = true,
                 .is_plain = true,
                 .keeps_line_ends = true});
  all.push_back(
      {.name = "sarvam-moe", .names = {"sarvam-moe"}, .patterns = {kLines}, .is_plain = true});
}

Specs make_specs() {
  Specs all;
  add_qwen_and_llama(all);
  add_gpt2(all);
  add_deepseek(all);
  add_cased(all);
  add_others(all);
  return all;
}

const Specs& all_specs() {
  static const Specs specs = make_specs();
  return specs;
}

}  // namespace

const PretokenizerSpec* find_pretokenizer(std::string_view name) {
  if (name.empty()) name = "default";
  for (const PretokenizerSpec& spec : all_specs()) {
    if (std::find(spec.names.begin(), spec.names.end(), name) != spec.names.end()) return &spec;
  }
  return nullptr;
}

std::string supported_pretokenizers() {
  std::string text;
  for (const PretokenizerSpec& spec : all_specs()) {
    for (std::string_view name : spec.names) text += (text.empty() ? "" : ", ") + std::string(name);
  }
  return text;
}

}  // namespace spectralquant::text
