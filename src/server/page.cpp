// The page's file is in the program as it stands.
#include "server/page.h"

asm(".section .rodata\n"
    "atelier_page_begin:\n"
    ".incbin \"" ATELIER_PAGE
    "\"\n"
    "atelier_page_end:\n"
    ".byte 0\n"
    ".globl atelier_page_begin\n"
    ".globl atelier_page_end\n"
    ".previous\n");

extern "C" const char atelier_page_begin[], atelier_page_end[];

namespace atelier::server {

std::string_view page_html() {
  return {atelier_page_begin, static_cast<size_t>(atelier_page_end - atelier_page_begin)};
}

}  // namespace atelier::server
