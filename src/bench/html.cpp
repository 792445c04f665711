#include "bench/html.h"

#include <sstream>

#include "base/error.h"
#include "bench/svg.h"

namespace atelier::bench {
namespace {

constexpr const char* kStyle =
    ":root{color-scheme:light dark;--ink:#1b1f24;--soft:#59636e;--line:#d8dee4;--paper:#fff;--head:#f3f5f7}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b1;--line:#30363d;--paper:#0d1117;--"
    "head:#161b22}}"
    "body{font:15px/1.5 "
    "system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:70rem;margin:2rem auto;"
    "padding:0 1rem}h1{font-size:1.6rem}h2{font-size:1.25rem;margin-top:2.2rem;border-bottom:1px solid "
    "var(--line)}"
    "h3{font-size:1rem;margin-bottom:.3rem}.wide{overflow-x:auto}table{border-collapse:collapse;font-size:."
    "87rem}"
    "th,td{border:1px solid var(--line);padding:.2rem "
    ".5rem;text-align:left;vertical-align:top}th{background:var(--head)}"
    ".measured{font-weight:600}.modelled{font-style:italic}.cited{color:var(--soft)}"
    "td.measured,td.modelled,td.cited{text-align:right}td[class]{white-space:nowrap}td.words{text-align:left;"
    "font-weight:400;white-space:normal}td.modelled::"
    "after{content:\" (modelled)\"}"
    "td.cited::after{content:\" "
    "(cited)\"}small{color:var(--soft)}.chart{width:100%;max-width:54rem;height:auto;margin:.6rem "
    "0}"
    "figure{display:inline-block;margin:.5rem .8rem .5rem "
    "0;max-width:100%;vertical-align:top}img{max-width:100%}"
    "figcaption{font-size:.85rem;max-width:48rem}code{font-size:.85em;overflow-wrap:anywhere}nav "
    "a{margin-right:.8rem}";

constexpr size_t kNumberLetters = 14;  // longer cells are words: not set to the right

const char* class_of(Basis source) {
  return source == Basis::kText ? "" : name_of(source).data();
}

std::string base64(const std::string& bytes) {
  constexpr const char* kLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    unsigned three = 0;
    for (size_t j = 0; j < 3; ++j)
      three = three << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0);
    for (size_t j = 0; j < 4; ++j) out += i + j <= bytes.size() ? kLetters[three >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

void write_html(std::ostream& out, const Line& line) {
  out << "<p>" << escaped(line.text);
  if (line.source != Basis::kText)
    out << " <small class=\"" << class_of(line.source) << "\">" << name_of(line.source) << "</small>";
  out << "</p>\n";
}

void write_html(std::ostream& out, const Table& table) {
  out << "<h3>" << escaped(table.title) << "</h3>\n<div class=\"wide\"><table id=\"" << table.id << "\"><tr>";
  for (const auto& column : table.columns) out << "<th>" << escaped(column) << "</th>";
  out << "</tr>\n";
  for (const auto& row : table.rows) {
    out << "<tr>";
    for (const auto& cell : row) {
      out << "<td";
      const bool is_sentence = cell.text.size() > kNumberLetters;
      if (cell.source != Basis::kText)
        out << " class=\"" << class_of(cell.source) << (is_sentence ? " words" : "") << "\"";
      out << ">" << escaped(cell.text) << "</td>";
    }
    out << "</tr>\n";
  }
  out << "</table></div>\n";
}

void write_html(std::ostream& out, const Figure& picture) {
  out << "<figure><img alt=\"" << escaped(picture.caption) << "\" src=\"data:" << picture.type << ";base64,"
      << base64(picture.bytes) << "\"><figcaption>" << escaped(picture.caption) << " <small>"
      << name_of(picture.source) << "</small></figcaption></figure>\n";
}

void write_html(std::ostream& out, const PageSection& section) {
  out << "<h2 id=\"" << section.id << "\">" << escaped(section.title) << "</h2>\n";
  for (const auto& line : section.lines) write_html(out, line);
  for (const auto& chart : section.charts) out << svg(chart, SvgUse::kInPage) << "\n";
  for (const auto& table : section.tables) write_html(out, table);
  for (const auto& picture : section.pictures) write_html(out, picture);
}

}  // namespace

std::string html(const Document& document) {
  std::ostringstream out;
  out << "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
         "content=\"width=device-width\"><meta http-equiv=\"Content-Security-Policy\" content=\"default-src "
         "'none'; "
         "style-src 'unsafe-inline'; img-src data:\"><title>"
      << escaped(document.title) << "</title><style>" << kStyle << chart_style()
      << "</style></head><body>\n<h1>" << escaped(document.title) << "</h1>\n";
  for (const auto& line : document.lead) write_html(out, line);
  out << "<nav>";
  for (const auto& s : document.sections) out << "<a href=\"#" << s.id << "\">" << escaped(s.title) << "</a>";
  out << "</nav>\n";
  for (const auto& section : document.sections) write_html(out, section);
  out << "</body></html>\n";
  return out.str();
}

}  // namespace atelier::bench
