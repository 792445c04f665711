// The server around an engine that draws nothing, for load tests and clients that send anything: serve-stub DATA_DIR
// [STEP_MICROSECONDS] [FLAGS]: --keys FILE. Beside it, on the next port, a server whose handler does nothing: what any
// request costs. Ends with its standard input.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "base/log.h"
#include "media/image.h"
#include "server/api.h"
#include "server/testing.h"

using namespace atelier;

namespace {

// Reads the body and answers as many bytes as a small picture's answer has.
class Nothing : public http::HttpHandler {
 public:
  http::BodyPlan plan(const http::IncomingRequest&) override { return {.most_bytes = 1 << 20}; }
  void handle(http::IncomingRequest, http::HttpReply reply) override {
    reply.send({.body = std::string(700, ' ')});
  }
  void open(http::IncomingRequest, http::WebSocket) override {}
  http::OutgoingResponse own_answer(int status, const std::string&) override {
    return {.status = status, .body = "{}"};
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  log::set_console(log::Level::kError);
  const int step_us = argc > 2 ? std::atoi(argv[2]) : 0;
  const server::StoreFolder folder(argv[1]);
  const auto store = server::open_sqlite(folder);
  server::Metrics metrics;
  const server::StubMaker maker;
  server::AdapterShelf adapters("");
  const std::string picture =
      media::encode(media::Image{8, 8, std::vector<uint8_t>(192, 128)}, media::Format::kPng);
  server::Dispatcher dispatcher(
      {.batch = {.most = 4}, .max_queue = 4096, .max_per_owner = 4096}, *store, 100, metrics, [&] {
        return std::make_unique<server::StubEngine>(
            server::StubEngine::Behaviour{.step_time = std::chrono::microseconds(step_us), .data = picture});
      });
  server::ApiOptions options{.access = {.host = "127.0.0.1"}, .inputs = folder.path() / "pictures"};
  if (argc > 4 && std::string(argv[3]) == "--keys") options.access.keys.add_file(argv[4]);
  server::Api api(std::move(options), maker, dispatcher, adapters, *store, metrics);
  http::HttpServer http({}, api);
  Nothing nothing;
  http::HttpServer beside({}, nothing);
  std::printf("serving  http://127.0.0.1:%d\nnothing  http://127.0.0.1:%d\n", http.port(), beside.port());
  std::fflush(stdout);
  while (std::getchar() != EOF) {
  }
  dispatcher.drain(std::chrono::milliseconds(500));
}
