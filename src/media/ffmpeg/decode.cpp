#include "media/ffmpeg/decode.h"

extern "C" {
#include <libavutil/display.h>
}

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace atelier::media::ffmpeg {
namespace {

constexpr int kBuffer = 1 << 16;
// Containers of one file. Lists of other files, and addresses, are not among them.
constexpr const char* kContainers =
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,yuv4mpegpipe,h264,"
    "hevc,ivf,obu,m4v";

[[noreturn]] void fail(const std::string& why) {
  throw std::runtime_error(why);
}

struct CloseFile {
  void operator()(std::FILE* f) const { std::fclose(f); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

int read_some(void* file, uint8_t* data, int size) {
  const size_t n = std::fread(data, 1, static_cast<size_t>(size), static_cast<std::FILE*>(file));
  return n > 0 ? static_cast<int>(n) : AVERROR_EOF;
}

int64_t seek(void* file, int64_t offset, int whence) {
  auto* f = static_cast<std::FILE*>(file);
  if (whence == AVSEEK_SIZE) {
    const long at = std::ftell(f);
    std::fseek(f, 0, SEEK_END);
    const long size = std::ftell(f);
    std::fseek(f, at, SEEK_SET);
    return size;
  }
  if (std::fseek(f, static_cast<long>(offset), whence & 3) != 0) return AVERROR(EINVAL);
  return std::ftell(f);
}

struct CloseInput {
  void operator()(AVFormatContext* p) const { avformat_close_input(&p); }
};
using Demuxer = std::unique_ptr<AVFormatContext, CloseInput>;

void check_pixels(int64_t width, int64_t height) {
  if (width >= 1 && height >= 1 && width <= kMaxPixels / height) return;
  fail("it says its frames are " + std::to_string(width) + " x " + std::to_string(height) +
       " pixels; frames of 1 to " + std::to_string(kMaxPixels) + " pixels are read");
}

// Quarter turns to the right that bring a frame upright.
int turns_of(const AVStream& stream) {
  const int32_t* matrix = nullptr;
#if LIBAVFORMAT_VERSION_MAJOR >= 61
  const auto& p = *stream.codecpar;
  if (const auto* side =
          av_packet_side_data_get(p.coded_side_data, p.nb_coded_side_data, AV_PKT_DATA_DISPLAYMATRIX))
    matrix = side->size >= 36 ? reinterpret_cast<const int32_t*>(side->data) : nullptr;
#else
  size_t size = 0;
  const auto* side = av_stream_get_side_data(&stream, AV_PKT_DATA_DISPLAYMATRIX, &size);
  if (side && size >= 36) matrix = reinterpret_cast<const int32_t*>(side);
#endif
  if (!matrix) return 0;
  const double left = av_display_rotation_get(matrix);  // degrees, counter-clockwise
  return std::isnan(left) ? 0 : ((static_cast<int>(std::lround(-left / 90)) % 4) + 4) % 4;
}

Image turned(const Image& picture, int turns) {
  if (turns == 0) return picture;
  const bool is_exchanged = turns % 2 == 1;
  Image out{is_exchanged ? picture.height : picture.width, is_exchanged ? picture.width : picture.height, {}};
  out.rgb.resize(picture.rgb.size());
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      const int from_x = turns == 1 ? y : turns == 2 ? out.width - 1 - x : out.height - 1 - y;
      const int from_y = turns == 1 ? out.width - 1 - x : turns == 2 ? out.height - 1 - y : x;
      const auto at = [](int row, int col, int width) {
        return size_t{3} * (static_cast<size_t>(row) * static_cast<size_t>(width) + static_cast<size_t>(col));
      };
      std::copy_n(&picture.rgb[at(from_y, from_x, picture.width)], 3, &out.rgb[at(y, x, out.width)]);
    }
  }
  return out;
}

class VideoReader {
 public:
  explicit VideoReader(const std::string& path) : file_(std::fopen(path.c_str(), "rb")) {
    if (!file_) fail("it cannot be opened");
    io_.reset(need(avio_alloc_context(static_cast<uint8_t*>(need(av_malloc(kBuffer), "a buffer")), kBuffer, 0,
                                      file_.get(), read_some, nullptr, seek),
                   "a buffer"));
    auto* made = need(avformat_alloc_context(), "a reader");
    made->pb = io_.get();
    made->flags |= AVFMT_FLAG_CUSTOM_IO;
    made->max_analyze_duration = 10 * AV_TIME_BASE;
    AVDictionary* options = nullptr;
    av_dict_set(&options, "format_whitelist", kContainers, 0);
    const int code = avformat_open_input(&made, nullptr, nullptr, &options);
    av_dict_free(&options);
    if (code < 0) fail("it is no video that can be read: " + reason(code));
    demuxer_.reset(made);
    find_stream();
  }

  AnimationFacts run(const TakeFrame& take) {
    PacketPointer packet(need(av_packet_alloc(), "a packet"));
    bool goes_on = true;
    int64_t packets = 0;
    while (goes_on) {
      const int code = av_read_frame(demuxer_.get(), packet.get());
      if (code == AVERROR_EOF) break;
      if (code < 0) fail("it is damaged: " + reason(code));
      if (packet->stream_index == stream_->index) {
        ++packets;
        if ((packet->flags & AV_PKT_FLAG_CORRUPT) != 0) fail("it is cut off");
        goes_on = decode(packet.get(), take);
      }
      av_packet_unref(packet.get());
    }
    if (goes_on && packets < stream_->nb_frames)
      fail("it is cut off: " + std::to_string(packets) + " of " + std::to_string(stream_->nb_frames) +
           " frames are there");
    if (goes_on) decode(nullptr, take);
    if (facts_.frames == 0) fail("it holds no frame");
    return facts_;
  }

 private:
  void find_stream() {
    // Before anything is decoded.
    for (unsigned i = 0; i < demuxer_->nb_streams; ++i) {
      const auto& p = *demuxer_->streams[i]->codecpar;
      if (p.codec_type == AVMEDIA_TYPE_VIDEO && p.width > 0) check_pixels(p.width, p.height);
    }
    need(avformat_find_stream_info(demuxer_.get(), nullptr), "it is damaged");
    const AVCodec* found = nullptr;
    const int best = av_find_best_stream(demuxer_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, &found, 0);
    if (best < 0) fail("it holds no video that can be decoded");
    stream_ = demuxer_->streams[best];
    check_pixels(stream_->codecpar->width, stream_->codecpar->height);
    codec_.reset(need(avcodec_alloc_context3(found), "a decoder"));
    need(avcodec_parameters_to_context(codec_.get(), stream_->codecpar), "a decoder");
    codec_->max_pixels = kMaxPixels;
    codec_->err_recognition = AV_EF_EXPLODE | AV_EF_CRCCHECK;
    codec_->thread_count = 0;
    need(avcodec_open2(codec_.get(), found, nullptr), "a decoder");
    turns_ = turns_of(*stream_);
    const auto rate = av_guess_frame_rate(demuxer_.get(), stream_, nullptr);
    facts_.fps = rate.den > 0 ? av_q2d(rate) : 0;
  }

  // null: the last ones. False: no more are wanted.
  bool decode(const AVPacket* packet, const TakeFrame& take) {
    if (const int code = avcodec_send_packet(codec_.get(), packet); code < 0 && code != AVERROR_EOF)
      fail("it is damaged: " + reason(code));
    FramePointer frame(need(av_frame_alloc(), "a frame"));
    for (;;) {
      const int code = avcodec_receive_frame(codec_.get(), frame.get());
      if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return true;
      if (code < 0) fail("it is damaged: " + reason(code));
      Image picture = turned(rgb_of(*frame), turns_);
      facts_.width = picture.width, facts_.height = picture.height;
      ++facts_.frames;
      if (!take(std::move(picture))) return false;
    }
  }

  Image rgb_of(const AVFrame& frame) {
    check_pixels(frame.width, frame.height);
    scaler_.reset(sws_getCachedContext(scaler_.release(), frame.width, frame.height,
                                       static_cast<AVPixelFormat>(frame.format), frame.width, frame.height,
                                       AV_PIX_FMT_RGB24, SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT,
                                       nullptr, nullptr, nullptr));
    if (!scaler_) fail("its colours are of a kind that cannot be read");
    const bool is_709 = frame.colorspace == AVCOL_SPC_BT709 ||
                        (frame.colorspace == AVCOL_SPC_UNSPECIFIED && frame.height >= 720);
    sws_setColorspaceDetails(scaler_.get(), sws_getCoefficients(is_709 ? SWS_CS_ITU709 : SWS_CS_ITU601),
                             frame.color_range == AVCOL_RANGE_JPEG, sws_getCoefficients(SWS_CS_ITU709), 1, 0,
                             1 << 16, 1 << 16);
    // Vector instructions write behind the end of rows.
    FramePointer rgb(need(av_frame_alloc(), "a frame"));
    rgb->format = AV_PIX_FMT_RGB24, rgb->width = frame.width, rgb->height = frame.height;
    need(av_frame_get_buffer(rgb.get(), 0), "a frame");
    need(sws_scale(scaler_.get(), frame.data, frame.linesize, 0, frame.height, rgb->data, rgb->linesize),
         "a frame");
    Image out{frame.width, frame.height, {}};
    const auto row = size_t{3} * static_cast<size_t>(frame.width);
    out.rgb.resize(row * static_cast<size_t>(frame.height));
    for (int y = 0; y < frame.height; ++y)
      std::memcpy(&out.rgb[static_cast<size_t>(y) * row], rgb->data[0] + int64_t{y} * rgb->linesize[0], row);
    return out;
  }

  File file_;
  InOut io_;
  Demuxer demuxer_;
  Codec codec_;
  Scaler scaler_;
  AVStream* stream_ = nullptr;
  int turns_ = 0;
  AnimationFacts facts_;
};

}  // namespace

AnimationFacts read(const std::string& file, const TakeFrame& take) {
  return VideoReader(file).run(take);
}

}  // namespace atelier::media::ffmpeg
