# shellcheck shell=bash disable=SC2034,SC2154,SC2086,SC2046
# Compilers, tools and libraries of the distribution; sourced by setup.sh.

# package: what proves that it is there (a program, or a header that the compiler finds)
tools="g++:g++ cmake:cmake ninja-build:ninja pkg-config:pkg-config python3:python3"
libraries="libcli11-dev:CLI/CLI.hpp nlohmann-json3-dev:nlohmann/json.hpp libyaml-cpp-dev:yaml-cpp/yaml.h
  libspdlog-dev:spdlog/spdlog.h libicu-dev:unicode/uchar.h
  libpng-dev:png.h libjpeg-dev:jpeglib.h libwebp-dev:webp/encode.h libcurl4-openssl-dev:curl/curl.h
  libssl-dev:openssl/evp.h libgloo-dev:gloo/config.h"
# What the server needs besides: it is a module of its own.
server_libraries="libsqlite3-dev:sqlite3.h libpq-dev:"
test_libraries="libgtest-dev:gtest/gtest.h libgmock-dev:gmock/gmock.h"
# For the module atelier_ffmpeg, which reads and writes video files: needed only where that is asked for.
video_libraries="libavcodec-dev:libavcodec/avcodec.h libavformat-dev:libavformat/avformat.h libswscale-dev:libswscale/swscale.h"
helpers="lld:ld.lld ccache:ccache python3-venv:"  # faster builds, a tidier venv; nothing fails without them

missing_packages=()
missing_helpers=()

is_debian() { command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; }

# Prints those of the packages given that dpkg does not list as installed; all of them where there is no dpkg.
not_in_dpkg() {
  local name installed=""
  if is_debian; then
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | awk '$1 == "installed" { print $2 }' || true)
  fi
  for name; do
    grep -qxF -- "$name" <<<"$installed" || echo "$name"
  done
}

# A package that dpkg does not know may still be there, built by hand.
found_without_dpkg() { # proof
  [[ -n $1 ]] || return 1
  case $1 in
    *.h | *.hpp) echo "#include <$1>" | "${CXX:-g++}" -std=c++20 -x c++ -M - >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# Prints the packages of a list "package:proof ..." that are missing.
missing_in() {
  local -A proof=()
  local entry name
  for entry in $1; do proof[${entry%%:*}]=${entry#*:}; done
  for name in $(not_in_dpkg "${!proof[@]}" | sort); do
    found_without_dpkg "${proof[$name]}" || echo "$name"
  done
}

# The oldest Boost that serves, as this distribution calls it; nothing where a new enough one is there by any name.
boost_package() {
  if printf '#include <boost/version.hpp>\n#if BOOST_VERSION < 108100\n#error old\n#endif\n#include <boost/beast/core.hpp>\n' |
    "${CXX:-g++}" -std=c++20 -x c++ -M - >/dev/null 2>&1; then
    return
  fi
  case $(. /etc/os-release 2>/dev/null && echo "${ID:-}${VERSION_ID:-}") in
    debian12) echo "libboost1.81-dev:" ;;
    debian13 | ubuntu24*) echo "libboost1.83-dev:" ;;
    *) echo "libboost-dev:boost/beast/core.hpp" ;;
  esac
}

builds_server() { [[ " $1 " == *" atelier-serve "* ]]; }

missing_of_system() { # targets
  local wanted="$tools $libraries"
  if builds_server "$1"; then wanted+=" $server_libraries $(boost_package)"; fi
  if [[ " $1 " == *" atelier_ffmpeg "* ]]; then wanted+=" $video_libraries"; fi
  # On their own, the programs and the module need no test libraries.
  if [[ " $1 " != " atelier"* || " $1 " == *" all "* ]]; then wanted+=" $test_libraries"; fi
  mapfile -t missing_packages < <(missing_in "$wanted")
  mapfile -t missing_helpers < <(missing_in "$helpers")
}

# Prints how to become root without asking, "sudo" where a person can type a password, or fails.
become_root() {
  if ((EUID == 0)); then
    echo "env"
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    echo "sudo -n"
  elif command -v sudo >/dev/null && [[ -t 0 && -t 1 ]]; then
    echo "sudo"
  else
    return 1
  fi
}

can_install_packages() { is_debian && become_root >/dev/null; }

apt_command() { echo "apt-get install -y --no-install-recommends $*"; }

# apt's own words on what a set of packages costs: "12.3 MB to download, 40 MB on disk".
apt_size() { # root-command package...
  $1 env LC_ALL=C apt-get install --assume-no --no-install-recommends "${@:2}" 2>/dev/null |
    sed -n 's/^Need to get \(.*\) of archives.*/\1 to download/p; s/^After this operation, \(.*\) of additional.*/\1 on disk/p' |
    paste -sd, - | sed 's/,/, /' || true
}

install_system() {
  local wanted=("${missing_packages[@]}" "${missing_helpers[@]}")
  ((${#wanted[@]})) || return 0
  can_install_packages || return 0
  local root_command
  root_command=$(become_root)
  # The lists may be absent or old; an unreachable extra source must not stop the rest.
  logged $root_command apt-get update || say "apt-get update did not reach every source; going on"
  local size
  size=$(apt_size "$root_command" "${wanted[@]}")
  say "installing ${#wanted[@]} packages by apt${size:+ ($size)}"
  if ! logged $root_command env DEBIAN_FRONTEND=noninteractive $(apt_command "${wanted[@]}"); then
    stop_with_log "apt could not install: ${wanted[*]}" \
      "check the network and apt's sources, or run: sudo $(apt_command "${wanted[@]}")"
  fi
  missing_packages=()
  missing_helpers=()
}

# Called after PyPI has given what it can: what is left must come from an administrator.
refuse_what_is_still_missing() {
  local left=() name
  for name in "${missing_packages[@]}"; do
    case $name in
      cmake) works cmake || left+=("$name") ;;
      ninja-build) works ninja || left+=("$name") ;;
      *) left+=("$name") ;;
    esac
  done
  ((${#left[@]})) || return 0
  if is_debian; then
    stop "these packages are missing, and installing them needs root:" "${left[@]}" "" \
      "an administrator installs them with this one command:" "  sudo $(apt_command "${left[@]}")" \
      "then run the same command again; what PyPI offers is already in .venv"
  fi
  stop "these tools and libraries are missing (Debian's names; other distributions say -devel or nothing for -dev):" \
    "${left[@]}" "" "install them by your package manager, then run the same command again." \
    "A library in an unusual place is found through CPATH and CMAKE_PREFIX_PATH."
}
