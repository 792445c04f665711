// FFmpeg's objects with owners, and its errors as exceptions. Only for the module.
#pragma once
extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/imgutils.h>
#include <libswscale/swscale.h>
}

#include <array>
#include <memory>
#include <stdexcept>
#include <string>

namespace atelier::media::ffmpeg {

// Deletes by one of FFmpeg's functions that take the address of a pointer.
template <auto kFree>
struct Freed {
  template <class T>
  void operator()(T* p) const {
    kFree(&p);
  }
};
using FramePointer = std::unique_ptr<AVFrame, Freed<av_frame_free>>;
using PacketPointer = std::unique_ptr<AVPacket, Freed<av_packet_free>>;
using Codec = std::unique_ptr<AVCodecContext, Freed<avcodec_free_context>>;
struct FreeScaler {
  void operator()(SwsContext* p) const { sws_freeContext(p); }
};
using Scaler = std::unique_ptr<SwsContext, FreeScaler>;
// The buffer of an AVIOContext may be another one than it was made with.
struct FreeInOut {
  void operator()(AVIOContext* p) const {
    av_freep(&p->buffer);
    avio_context_free(&p);
  }
};
using InOut = std::unique_ptr<AVIOContext, FreeInOut>;

inline std::string reason(int code) {
  std::array<char, AV_ERROR_MAX_STRING_SIZE> text{};
  av_strerror(code, text.data(), text.size());
  return text.data();
}

// Gives what FFmpeg gave, unless that is an error.
inline int need(int code, const char* what) {
  if (code < 0) throw std::runtime_error(std::string(what) + ": " + reason(code));
  return code;
}
template <class T>
T* need(T* made, const char* what) {
  if (!made) throw std::runtime_error(std::string(what) + ": no memory");
  return made;
}

}  // namespace atelier::media::ffmpeg
