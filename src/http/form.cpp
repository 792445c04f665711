#include "http/form.h"

#include <algorithm>

#include "base/error.h"
#include "base/quote.h"
#include "base/text.h"

namespace atelier::http {
namespace {

constexpr size_t kLongestBoundary = 70;  // RFC 2046

[[noreturn]] void refuse(const std::string& what) {
  throw Error(Kind::kUsage, "the multipart form " + what);
}

// One parameter of a header's value, `name="..."` or `name=...`; none where it is missing.
std::optional<std::string> parameter(std::string_view value, std::string_view name) {
  size_t at = value.find(';');
  while (at != std::string_view::npos) {
    size_t begin = at + 1;
    while (begin < value.size() && (value[begin] == ' ' || value[begin] == '\t')) ++begin;
    const size_t equals = value.find_first_of("=;", begin);
    if (equals == std::string_view::npos) return std::nullopt;
    if (value[equals] == ';') {
      at = equals;
      continue;
    }
    const std::string key = lower(trim(value.substr(begin, equals - begin)));
    std::string out;
    size_t end = equals + 1;
    if (end < value.size() && value[end] == '"') {
      for (++end; end < value.size() && value[end] != '"'; ++end) {
        // browsers escape a quote as %22 and leave a backslash alone; curl writes \" and \\.
        const bool is_escape =
            value[end] == '\\' && end + 1 < value.size() && (value[end + 1] == '"' || value[end + 1] == '\\');
        if (is_escape) ++end;
        out += value[end];
      }
      if (end >= value.size()) return std::nullopt;
      at = value.find(';', end);
    } else {
      at = value.find(';', end);
      out = std::string(trim(value.substr(end, std::min(at, value.size()) - end)));
    }
    if (key == name) return out;
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> form_boundary(std::string_view content_type) {
  const std::string kind = lower(trim(content_type.substr(0, content_type.find(';'))));
  if (kind != "multipart/form-data") return std::nullopt;
  auto boundary = parameter(content_type, "boundary");
  if (!boundary || boundary->empty() || boundary->size() > kLongestBoundary) return std::nullopt;
  const bool is_legal = std::all_of(boundary->begin(), boundary->end(), [](char c) {
    return std::string_view("'()+_,-./:=? ").find(c) != std::string_view::npos ||
           std::isalnum(static_cast<unsigned char>(c));
  });
  return is_legal && boundary->back() != ' ' ? boundary : std::nullopt;
}

FormReader::FormReader(const std::string& boundary, FormLimits limits)
    : delimiter_("\r\n--" + boundary), limits_(limits), pending_("\r\n") {}

void FormReader::add(std::string_view bytes) {
  if (state_ == FormState::kEnd) return;  // an epilogue means nothing
  pending_.append(bytes);
  while (step()) {
  }
}

std::vector<FormPart> FormReader::finish() {
  if (state_ != FormState::kEnd) refuse("ends before its last boundary");
  return std::move(parts_);
}

bool FormReader::step() {
  switch (state_) {
    case FormState::kPreamble: {
      const size_t at = pending_.find(delimiter_);
      if (at != std::string::npos) {
        pending_.erase(0, at + delimiter_.size());
        state_ = FormState::kAfterBoundary;
        return true;
      }
      if (pending_.size() > limits_.header_bytes) refuse("does not begin with its boundary");
      return false;
    }
    case FormState::kAfterBoundary:
      return after_boundary();
    case FormState::kHeaders:
      return read_headers();
    case FormState::kData:
      return read_data();
    case FormState::kEnd:
      pending_.clear();
      return false;
  }
  return false;
}

bool FormReader::after_boundary() {
  // white space may stand behind a boundary
  const size_t at = pending_.find_first_not_of(" \t");
  if (at == std::string::npos || pending_.size() < at + 2) {
    if (pending_.size() > limits_.header_bytes) refuse("has a boundary that does not end");
    return false;
  }
  const std::string_view next(pending_.data() + at, 2);
  if (next == "--" && at == 0) {
    state_ = FormState::kEnd;
    return true;
  }
  if (next != "\r\n") refuse("has a boundary that is followed by something else");
  pending_.erase(0, at);  // the line end stays: headers end with an empty line, and there may be none
  state_ = FormState::kHeaders;
  return true;
}

bool FormReader::read_headers() {
  const size_t end = pending_.find("\r\n\r\n");
  if (std::min(end, pending_.size()) > limits_.header_bytes)
    refuse(str("has a part whose headers are longer than ", limits_.header_bytes, " bytes"));
  if (end == std::string::npos) return false;
  begin_part(std::string_view(pending_).substr(0, end));
  // a line end stays here, too: a delimiter that follows at once begins with it
  pending_.erase(0, end + 2);
  state_ = FormState::kData;
  return true;
}

void FormReader::begin_part(std::string_view headers) {
  if (parts_.size() == limits_.parts) refuse(str("has more than ", limits_.parts, " parts"));
  FormPart part;
  std::optional<std::string> name;
  for (const std::string_view line : split_lines(headers)) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) {
      if (!trim(line).empty()) refuse("has a part with a broken header line");
      continue;
    }
    const std::string key = lower(trim(line.substr(0, colon)));
    const std::string_view value = trim(line.substr(colon + 1));
    if (key == "content-disposition") {
      if (lower(trim(value.substr(0, value.find(';')))) != "form-data")
        refuse("has a part that is no form-data");
      name = parameter(value, "name");
      part.file_name = parameter(value, "filename").value_or("");
    } else if (key == "content-type") {
      part.content_type = std::string(value);
    } else if (key == "content-transfer-encoding" && lower(value) != "binary" && lower(value) != "8bit" &&
               lower(value) != "7bit") {
      refuse("has a part that is encoded: " + in_quotes(value));
    }
  }
  if (!name || !is_utf8(*name)) refuse("has a part without a name");
  part.name = std::move(*name);
  parts_.push_back(std::move(part));
}

// pending_ begins with the line end behind the headers, which is no data, at the first call, and with data
// later: `data` of the part is kept with that line end in front, until the part ends.
bool FormReader::read_data() {
  const size_t at = pending_.find(delimiter_);
  if (at != std::string::npos) {
    take(at);
    pending_.erase(0, delimiter_.size());
    parts_.back().data.erase(0, std::min<size_t>(2, parts_.back().data.size()));
    state_ = FormState::kAfterBoundary;
    return true;
  }
  if (pending_.size() > delimiter_.size()) take(pending_.size() - delimiter_.size());
  return false;
}

void FormReader::take(size_t bytes) {
  FormPart& part = parts_.back();
  const bool is_file = !part.file_name.empty() || !part.content_type.empty();
  const size_t most = is_file ? limits_.file_bytes : limits_.value_bytes;
  if (part.data.size() + bytes > most + 2)
    refuse(str("has a part ", in_quotes(part.name), " of more than ", most, " bytes"));
  part.data.append(pending_, 0, bytes);
  pending_.erase(0, bytes);
}

}  // namespace atelier::http
