// Why a request of a client is refused: what it is told, and with which status.
#pragma once
#include <stdexcept>
#include <string>

#include "base/json.h"

namespace atelier::server {

struct ApiError : std::runtime_error {
  ApiError(int http_status, std::string error_code, const std::string& message, std::string about = "")
      : std::runtime_error(message),
        status(http_status),
        code(std::move(error_code)),
        param(std::move(about)) {}
  int status;
  std::string code;       // for programs: "unknown_parameter"
  std::string param;      // the field that it is about; empty: none
  int retry_after_s = 0;  // 0: not said
};

// The object that OpenAI's API answers errors with.
Json error_object(int status, const std::string& message, const std::string& code = "",
                  const std::string& param = "");

}  // namespace atelier::server
