// The page that the server shows to browsers.
#pragma once
#include <string_view>

namespace atelier::server {

std::string_view page_html();

}  // namespace atelier::server
