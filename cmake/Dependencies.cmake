# Everything that comes from outside: the torch wheel and the distribution's libraries.
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(spdlog REQUIRED)
find_package(PNG REQUIRED)
find_package(JPEG REQUIRED)
find_package(CURL REQUIRED)
pkg_check_modules(WEBP REQUIRED IMPORTED_TARGET libwebp)
# For MP4 and other video files; the program does without. Version 59 of the first two came with FFmpeg 5.
pkg_check_modules(FFMPEG IMPORTED_TARGET libavcodec>=59 libavformat>=59 libavutil libswscale>=6)
pkg_check_modules(ICU REQUIRED IMPORTED_TARGET icu-uc icu-i18n)
pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET libcrypto)

if(ATELIER_SERVER)
  pkg_check_modules(SQLITE REQUIRED IMPORTED_TARGET sqlite3)
  pkg_check_modules(POSTGRES REQUIRED IMPORTED_TARGET libpq)
  pkg_check_modules(OPENSSL_TLS REQUIRED IMPORTED_TARGET libssl libcrypto)
  # Headers alone; older ones have another place for what coroutines need.
  find_path(BOOST_HEADERS boost/beast/core.hpp REQUIRED)
  file(STRINGS "${BOOST_HEADERS}/boost/version.hpp" boost_version REGEX "^#define BOOST_VERSION [0-9]+")
  string(REGEX MATCH "[0-9]+$" boost_version "${boost_version}")
  if(boost_version LESS 108100)
    message(FATAL_ERROR "the server needs Boost 1.81 or newer, ${BOOST_HEADERS}/boost has ${boost_version}: install libboost1.81-dev or libboost1.83-dev")
  endif()
  add_library(beast INTERFACE)
  target_include_directories(beast SYSTEM INTERFACE "${BOOST_HEADERS}")
endif()

if(NOT EXISTS "${ATELIER_TORCH}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "no torch at ${ATELIER_TORCH}: run ./atelier, which installs it, or pass -DATELIER_TORCH=<site-packages>/torch")
endif()
add_library(torch_cpu INTERFACE)
target_include_directories(torch_cpu SYSTEM INTERFACE
  "${ATELIER_TORCH}/include" "${ATELIER_TORCH}/include/torch/csrc/api/include")
# Each operator's header is included by name: all of them at once cost every source half a second more.
target_compile_definitions(torch_cpu INTERFACE AT_PER_OPERATOR_HEADERS)
target_link_directories(torch_cpu INTERFACE "${ATELIER_TORCH}/lib")
target_link_libraries(torch_cpu INTERFACE "${ATELIER_TORCH}/lib/libtorch_cpu.so" "${ATELIER_TORCH}/lib/libc10.so")
# libtorch_cpu names libcudart and libcupti, which the program finds at run time in ATELIER_LIBRARY_FOLDERS. Those are libraries
# of a library: only the old kind of run path (DT_RPATH) of a program is searched for them.
target_link_options(torch_cpu INTERFACE -Wl,--allow-shlib-undefined -Wl,--disable-new-dtags)
set(CMAKE_BUILD_RPATH "${ATELIER_TORCH}/lib" ${ATELIER_LIBRARY_FOLDERS})

if(ATELIER_CUDA)
  set(CMAKE_CUDA_ARCHITECTURES OFF)
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  add_library(torch_cuda INTERFACE)
  # Nothing names a symbol of libtorch_cuda: it registers itself when it is loaded, so it must not be dropped.
  set(torch_cuda_libraries "${ATELIER_TORCH}/lib/libtorch_cuda.so,${ATELIER_TORCH}/lib/libc10_cuda.so")
  target_link_libraries(torch_cuda INTERFACE
    torch_cpu "-Wl,--push-state,--no-as-needed,${torch_cuda_libraries},--pop-state" CUDA::cudart)
endif()
