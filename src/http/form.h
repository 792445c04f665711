// multipart/form-data, taken apart while it arrives: nothing of it is held twice. [RFC 7578, RFC 2046 5.1]
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::http {

struct FormPart {
  std::string name, file_name, content_type;  // file_name: only a label; empty: no file
  std::string data;
};

struct FormLimits {
  size_t parts = 64;
  size_t header_bytes = 4096;     // of one part
  size_t value_bytes = 1 << 20;   // of a part that is no file
  size_t file_bytes = 32u << 20;  // of one that is
};

// The boundary of a Content-Type line; none unless it is multipart/form-data with a legal one.
std::optional<std::string> form_boundary(std::string_view content_type);

class FormReader {
 public:
  explicit FormReader(const std::string& boundary, FormLimits limits = {});

  // The next bytes, cut anywhere. Throws Error(kUsage) for what is no form, or beyond a limit.
  void add(std::string_view bytes);
  // All parts, once everything was added. Throws Error(kUsage) unless the last boundary has come.
  std::vector<FormPart> finish();

 private:
  enum class FormState { kPreamble, kAfterBoundary, kHeaders, kData, kEnd };
  bool step();
  bool after_boundary();
  bool read_headers();
  bool read_data();
  void begin_part(std::string_view headers);
  void take(size_t bytes);

  const std::string delimiter_;  // with the line end and the dashes in front
  const FormLimits limits_;
  FormState state_ = FormState::kPreamble;
  std::string pending_;  // not looked at yet; at most a delimiter or the headers of a part
  std::vector<FormPart> parts_;
};

}  // namespace atelier::http
