// Opens the module over FFmpeg's libraries.
#include <dlfcn.h>

#include <filesystem>

#include "base/error.h"
#include "media/video.h"

namespace atelier::media {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModuleFile = "atelier_ffmpeg.so";  // beside the program

// Beside the program, or beside the folder of the tests.
fs::path module_file() {
  std::error_code error;
  const auto program = fs::read_symlink("/proc/self/exe", error);
  return program.parent_path() / kModuleFile;
}

[[noreturn]] void absent(const std::string& why) {
  throw Error(Kind::kUsage,
              str("MP4 and other video files need FFmpeg's libraries, which are not in use here (", why,
                  "). Install libavcodec-dev, libavformat-dev and libswscale-dev (Debian 12 has version 59 "
                  "as libavcodec59, "
                  "libavformat59, libswscale6; Debian 13 version 61 as libavcodec61, libavformat61, "
                  "libswscale8), then run "
                  "tools/setup/setup.sh ",
#ifdef ATELIER_CUDA
                  "cuda",
#else
                  "cpu",
#endif
                  " atelier_ffmpeg; animated .webp, .gif and folders of frames need none of this"));
}

const FfmpegModule& open_module() {
  const auto file = module_file();
  std::error_code error;
  if (!fs::exists(file, error)) absent(str(file.string(), " has not been built"));
  // Its libraries' symbols stay its own.
  void* library = ::dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) absent(::dlerror());
  auto* entry = reinterpret_cast<FfmpegModuleEntry*>(::dlsym(library, kFfmpegModuleSymbol));
  const FfmpegModule* module = entry ? entry(kFfmpegModuleVersion) : nullptr;
  if (!module) absent(str(file.string(), " is of another version of this program"));
  return *module;
}

}  // namespace

const FfmpegModule& ffmpeg_module() {
  static const FfmpegModule& module = open_module();  // tried again after it threw
  return module;
}

}  // namespace atelier::media
