# Writes page.html into a C++ file as an array of bytes.
#   cmake -DPAGE=page.html -DOUT=page_template.cpp -P embed_page.cmake
file(READ ${PAGE} bytes HEX)
string(REGEX REPLACE "(................................................................)" "\\1\n" bytes "${bytes}")
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${OUT} "// Made from page.html.
#include \"spectralquant/publish/html.h\"

namespace spectralquant::publish {
namespace {

constexpr unsigned char kPage[] = {
${bytes}};

}  // namespace

std::string_view page_template() { return {reinterpret_cast<const char*>(kPage), sizeof kPage}; }

}  // namespace spectralquant::publish
")
