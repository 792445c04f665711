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
pkg_check_modules(ICU REQUIRED IMPORTED_TARGET icu-uc icu-i18n)
pkg_check_modules(OPENSSL REQUIRED IMPORTED_TARGET libcrypto)

if(NOT EXISTS "${ATELIER_TORCH}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "no torch at ${ATELIER_TORCH}: run ./atelier, which installs it, or pass -DATELIER_TORCH=<site-packages>/torch")
endif()
add_library(torch_cpu INTERFACE)
target_include_directories(torch_cpu SYSTEM INTERFACE
  "${ATELIER_TORCH}/include" "${ATELIER_TORCH}/include/torch/csrc/api/include")
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
