#include "media/ffmpeg/encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace atelier::media::ffmpeg {
namespace {

constexpr int kBuffer = 1 << 16;

// A file in memory.
struct MemoryFile {
  std::string bytes;
  int64_t at = 0;

#if LIBAVFORMAT_VERSION_MAJOR >= 61
  using Written = const uint8_t;
#else
  using Written = uint8_t;
#endif
  static int write(void* file, Written* data, int size) {
    auto& f = *static_cast<MemoryFile*>(file);
    try {
      const auto end = static_cast<size_t>(f.at + size);
      if (end > f.bytes.size()) f.bytes.resize(end);
    } catch (const std::exception&) {
      return AVERROR(ENOMEM);
    }
    std::memcpy(f.bytes.data() + f.at, data, static_cast<size_t>(size));
    f.at += size;
    return size;
  }
  static int64_t seek(void* file, int64_t offset, int whence) {
    auto& f = *static_cast<MemoryFile*>(file);
    const auto size = static_cast<int64_t>(f.bytes.size());
    if (whence == AVSEEK_SIZE) return size;
    const int64_t base = whence == SEEK_CUR ? f.at : whence == SEEK_END ? size : 0;
    if (base + offset < 0) return AVERROR(EINVAL);
    return f.at = base + offset;
  }
};

struct FreeMuxer {
  void operator()(AVFormatContext* p) const { avformat_free_context(p); }
};
using Muxer = std::unique_ptr<AVFormatContext, FreeMuxer>;

// Rate factor of each encoder: 0 is lossless, the last one the worst.
int rate_factor(const std::string& encoder, int quality) {
  const int worst = encoder == "libx264" ? 51 : 63;
  return std::clamp(static_cast<int>(std::lround(worst * (1 - 0.0077 * quality))), 1, worst);
}

AVRational rate_of(double fps) {
  return av_d2q(fps > 0 ? fps : 1, 100100);
}

void set_colours(AVCodecContext& c) {
  c.color_range = AVCOL_RANGE_MPEG;
  c.color_primaries = AVCOL_PRI_BT709;
  c.color_trc = AVCOL_TRC_BT709;
  c.colorspace = AVCOL_SPC_BT709;
}

// Null where this encoder is not there or cannot be opened for such pictures.
Codec open_encoder(const std::string& name, const Video& video, int quality, bool has_global_header) {
  const AVCodec* found = avcodec_find_encoder_by_name(name.c_str());
  if (!found) return nullptr;
  Codec codec(need(avcodec_alloc_context3(found), "an encoder"));
  const Image& first = video.frames.front();
  codec->width = first.width, codec->height = first.height;
  const bool is_even = first.width % 2 == 0 && first.height % 2 == 0;
  codec->pix_fmt = is_even ? AV_PIX_FMT_YUV420P : AV_PIX_FMT_YUV444P;
  codec->framerate = rate_of(video.fps);
  codec->time_base = av_inv_q(codec->framerate);
  codec->thread_count = 0;
  set_colours(*codec);
  if (has_global_header) codec->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
  AVDictionary* options = nullptr;
  const auto factor = std::to_string(rate_factor(name, quality));
  av_dict_set(&options, "crf", factor.c_str(), 0);
  if (name == "libvpx-vp9") av_dict_set(&options, "row-mt", "1", 0), codec->bit_rate = 0;
  if (name == "libaom-av1") av_dict_set(&options, "cpu-used", "6", 0), codec->bit_rate = 0;
  if (name == "libopenh264") codec->bit_rate = int64_t{quality} * 1000 * first.width * first.height / 4096;
  const int opened = avcodec_open2(codec.get(), found, &options);
  av_dict_free(&options);
  return opened < 0 ? nullptr : std::move(codec);
}

// Vector instructions read behind the end of rows.
FramePointer padded(const Image& picture) {
  FramePointer frame(need(av_frame_alloc(), "a frame"));
  frame->format = AV_PIX_FMT_RGB24, frame->width = picture.width, frame->height = picture.height;
  need(av_frame_get_buffer(frame.get(), 0), "a frame");
  const auto row = static_cast<size_t>(3 * picture.width);
  for (int y = 0; y < picture.height; ++y)
    std::memcpy(frame->data[0] + int64_t{y} * frame->linesize[0], &picture.rgb[static_cast<size_t>(y) * row],
                row);
  return frame;
}

std::string codec_name(const AVCodecContext& codec) {
  const char* kind = codec.codec_id == AV_CODEC_ID_H264  ? "H.264"
                     : codec.codec_id == AV_CODEC_ID_AV1 ? "AV1"
                     : codec.codec_id == AV_CODEC_ID_VP9 ? "VP9"
                                                         : avcodec_get_name(codec.codec_id);
  return std::string(kind) + " (" + codec.codec->name + ")";
}

class Mp4Writer {
 public:
  Mp4Writer(const Video& video, int quality, const Texts& texts, const std::vector<std::string>& encoders) {
    AVFormatContext* made = nullptr;
    need(avformat_alloc_output_context2(&made, nullptr, "mp4", nullptr), "an MP4");
    muxer_.reset(made);
    io_.reset(need(avio_alloc_context(static_cast<uint8_t*>(need(av_malloc(kBuffer), "a buffer")), kBuffer, 1,
                                      &file_, nullptr, MemoryFile::write, MemoryFile::seek),
                   "a buffer"));
    muxer_->pb = io_.get();
    muxer_->flags |= AVFMT_FLAG_CUSTOM_IO | AVFMT_FLAG_BITEXACT;
    const bool has_global_header = (muxer_->oformat->flags & AVFMT_GLOBALHEADER) != 0;
    std::string tried;
    for (const auto& name : encoders) {
      tried += (tried.empty() ? "" : ", ") + name;
      if ((codec_ = open_encoder(name, video, quality, has_global_header))) break;
    }
    if (!codec_) throw std::runtime_error("FFmpeg has none of the encoders " + tried);
    begin(texts);
    make_scaler();
  }

  void put(const Image& picture, int64_t number) {
    FramePointer frame(need(av_frame_alloc(), "a frame"));
    frame->format = codec_->pix_fmt, frame->width = picture.width, frame->height = picture.height;
    need(av_frame_get_buffer(frame.get(), 0), "a frame");
    const FramePointer rgb = padded(picture);
    need(sws_scale(scaler_.get(), rgb->data, rgb->linesize, 0, picture.height, frame->data, frame->linesize),
         "a frame");
    frame->pts = number;
    frame->colorspace = codec_->colorspace, frame->color_range = codec_->color_range;
    send(frame.get());
  }

  EncodedVideo finish() {
    send(nullptr);
    need(av_write_trailer(muxer_.get()), "the end of the MP4");
    avio_flush(io_.get());
    return {std::move(file_.bytes), codec_name(*codec_)};
  }

 private:
  void begin(const Texts& texts) {
    stream_ = need(avformat_new_stream(muxer_.get(), nullptr), "a stream");
    need(avcodec_parameters_from_context(stream_->codecpar, codec_.get()), "a stream");
    stream_->time_base = codec_->time_base;
    stream_->avg_frame_rate = codec_->framerate;
    if (!texts.parameters.empty()) av_dict_set(&muxer_->metadata, "comment", texts.parameters.c_str(), 0);
    if (!texts.json.empty()) av_dict_set(&muxer_->metadata, "description", texts.json.c_str(), 0);
    need(avformat_write_header(muxer_.get(), nullptr), "the header of the MP4");
  }
  void make_scaler() {
    scaler_.reset(
        need(sws_getContext(codec_->width, codec_->height, AV_PIX_FMT_RGB24, codec_->width, codec_->height,
                            codec_->pix_fmt, SWS_BICUBIC | SWS_ACCURATE_RND, nullptr, nullptr, nullptr),
             "colours"));
    const int* table = sws_getCoefficients(SWS_CS_ITU709);
    sws_setColorspaceDetails(scaler_.get(), table, 1, table, 0, 0, 1 << 16, 1 << 16);
  }
  void send(const AVFrame* frame) {
    need(avcodec_send_frame(codec_.get(), frame), "the encoder");
    PacketPointer packet(need(av_packet_alloc(), "a packet"));
    for (;;) {
      const int code = avcodec_receive_packet(codec_.get(), packet.get());
      if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
      need(code, "the encoder");
      packet->stream_index = stream_->index;
      if (packet->duration == 0) packet->duration = 1;
      av_packet_rescale_ts(packet.get(), codec_->time_base, stream_->time_base);
      need(av_interleaved_write_frame(muxer_.get(), packet.get()), "the MP4");
    }
  }

  MemoryFile file_;
  InOut io_;
  Muxer muxer_;
  Codec codec_;
  Scaler scaler_;
  AVStream* stream_ = nullptr;
};

}  // namespace

EncodedVideo encode(const Video& video, int quality, const Texts& texts,
                    const std::vector<std::string>& encoders) {
  Mp4Writer writer(video, quality, texts, encoders);
  for (size_t i = 0; i < video.frames.size(); ++i) writer.put(video.frames[i], static_cast<int64_t>(i));
  return writer.finish();
}

}  // namespace atelier::media::ffmpeg
