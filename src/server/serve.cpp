#include "server/serve.h"

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <optional>
#include <thread>

#include "app/cli/flags.h"
#include "app/run/find_model.h"
#include "app/run/run_spec.h"
#include "app/settings/home.h"
#include "base/error.h"
#include "base/log.h"
#include "base/printable.h"
#include "server/api.h"
#include "server/model_requests.h"

namespace atelier::server {
namespace {

// Signals come to the thread that waits for them, and to no other.
class Signals {
 public:
  Signals() {
    sigemptyset(&set_);
    for (const int s : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set_, s);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  }
  // The one that came within this time, or 0.
  int wait(std::chrono::milliseconds time) const {
    const timespec limit{.tv_sec = time.count() / 1000, .tv_nsec = (time.count() % 1000) * 1000000};
    const int s = ::sigtimedwait(&set_, nullptr, &limit);
    return s > 0 ? s : 0;
  }

 private:
  sigset_t set_{};
};

std::filesystem::path data_folder(const app::ServeSettings& s, const app::Environment& environment) {
  if (!s.data_dir.empty()) return s.data_dir;
  const std::string state = app::value_of(environment, "XDG_STATE_HOME");
  const std::filesystem::path base =
      state.empty() ? std::filesystem::path(app::home_folder(environment)) / ".local" / "state"
                    : std::filesystem::path(state);
  return base / "atelier" / "serve";
}

AccessRules access_of(const app::ServeSettings& s) {
  AccessRules rules{.host = s.host,
                    .port = s.port,
                    .allowed_hosts = s.allowed_hosts,
                    .cors_origins = s.cors_origins,
                    .is_secure = !s.tls_cert.empty()};
  for (const auto& key : s.api_key) rules.keys.add(key, "api_key");
  if (!s.api_key_file.empty()) rules.keys.add_file(s.api_key_file);
  if (s.tls_cert.empty() != s.tls_key.empty())
    throw Error(Kind::kUsage, "tls_cert and tls_key belong together: give both, or neither");
  check_exposure(rules);
  check_origins(rules.cors_origins);
  check_public_url(s.public_url);
  return rules;
}

app::Resolved resolved_of(const app::Parsed& parsed, const app::Environment& environment) {
  auto resolved = app::resolve(app::kServe, parsed.flags, environment, parsed.config);
  auto& s = resolved.settings;
  auto& request = s.input.row.request;
  // what the variables of Diffgentor's server say, unless a flag says more
  if (s.serve.num_inference_steps > 0 && !request.num_inference_steps)
    request.num_inference_steps = s.serve.num_inference_steps;
  if (s.serve.guidance_scale > 0 && !request.guidance_scale) request.guidance_scale = s.serve.guidance_scale;
  if (!s.serve.debug_log.empty() && s.serve.debug_log != "0")
    log::add_file(s.serve.debug_log == "1" ? "serve_debug.log" : s.serve.debug_log);
  return resolved;
}

ApiOptions api_options(const app::ServeSettings& s, const std::string& mode, AccessRules access,
                       const StoreFolder& folder, const ModelCard& card) {
  std::string url = s.public_url;
  while (url.ends_with('/')) url.pop_back();
  return {.access = std::move(access),
          .caps = {.pixels = s.max_pixels,
                   .steps = s.max_steps,
                   .n = s.max_n,
                   .frames = s.max_frames,
                   .prompt_bytes = s.max_prompt_bytes,
                   .adapters = s.max_adapters,
                   .has_urls = !url.empty(),
                   .has_mp4 = card.video_format == "mp4"},
          .mode = mode,
          .public_url = url,
          .request_timeout = s.request_timeout,
          .max_body_bytes = int64_t{s.max_body_mb} << 20,
          .keep_on_disconnect = s.keep_on_disconnect,
          .inputs = folder.path() / "pictures"};
}

void say(const std::string& line) {
  std::printf("%s\n", printable(line).c_str());
  std::fflush(stdout);
}

// Waits for a signal, or for what ends the server by itself. The exit code.
int stay(const Signals& signals, const Dispatcher& dispatcher) {
  for (;;) {
    const int s = signals.wait(std::chrono::milliseconds(200));
    if (s == SIGHUP) continue;  // the terminal is gone; the server stays
    if (s != 0) return s == SIGINT ? 130 : 0;
    if (const auto fatal = dispatcher.fatal()) throw Error(fatal->kind(), fatal->what());
  }
}

// A second signal ends the process at once.
void leave_on_signal(const Signals& signals) {
  std::thread([&signals] {
    for (;;) {
      const int s = signals.wait(std::chrono::hours(1));
      if (s == SIGINT || s == SIGTERM) ::_exit(130);
    }
  }).detach();
}

int run(app::Resolved resolved, const app::Environment& environment, const std::string& mode) {
  const auto& s = resolved.settings.serve;
  static const Signals signals;
  auto access = access_of(s);
  const StoreFolder folder(data_folder(s, environment));
  auto model = app::find_model(resolved, environment, say, {});
  if (model.folder.draws_videos())
    resolved.settings.output.output_format = "webp";  // a png holds one picture
  auto spec =
      app::make_run_spec(resolved, std::move(model), request::one_prompt("a picture"), 0, {.is_probe = true});
  spec.job.sink.returns_bytes = true;
  for (const auto& line : app::header(spec, resolved, app::HeaderOf::kServer)) say(line);
  AdapterShelf adapters(s.lora_dir);
  const auto store = s.database.empty() ? open_sqlite(folder) : open_postgres(s.database, folder);
  Metrics metrics;
  const auto maker = make_request_maker(resolved, spec);
  const DispatcherOptions most{.batch = {.most = maker->card().batch,
                                         .wait_s = s.batch_wait_ms / 1000.0,
                                         .jobs_at_once = s.max_concurrent},
                               .max_queue = s.max_queue,
                               .max_per_owner = s.max_per_key};
  Dispatcher dispatcher(most, *store, s.keep_jobs, metrics, [&spec] { return make_pool_engine(spec.job); });
  http::HttpOptions http_options{.host = s.host, .port = s.port};
  if (access.is_secure) http_options.tls = http::TlsFiles{.certificate = s.tls_cert, .key = s.tls_key};
  const char* const scheme = access.is_secure ? "https" : "http";
  auto options = api_options(s, mode, std::move(access), folder, maker->card());
  options.most = most;
  Api api(std::move(options), *maker, dispatcher, adapters, *store, metrics);
  http::HttpServer server(std::move(http_options), api);
  say(str("serving  ", scheme, "://", s.host, ":", server.port(),
          " (the page; /v1 the API, /openapi.json its description)"));
  const int code = stay(signals, dispatcher);
  say(str("ending: what is drawn may take ", s.grace, " s more; what waits goes on at the next start"));
  leave_on_signal(signals);
  dispatcher.drain(std::chrono::milliseconds(static_cast<int64_t>(s.grace * 1000)));
  server.drain();
  for (int i = 0; i < 100 && !server.is_drained(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  return code;
}

}  // namespace

int serve(const app::Arguments& arguments) {
  const app::FlagSet set{.surface = app::kServe,
                         .name = "serve",
                         .about =
                             "Stays loaded and draws what is asked over HTTP: OpenAI's Images API, jobs, a "
                             "page for browsers. Flags of a "
                             "picture (size, steps, guidance) are what requests have that do not say.",
                         .unused = {"prompt",
                                    "prompt_2",
                                    "prompt_3",
                                    "prompts_file",
                                    "output_name_column",
                                    "limit",
                                    "output_dir",
                                    "resume",
                                    "keep_changed",
                                    "image",
                                    "mask",
                                    "strength",
                                    "num_images_per_prompt",
                                    "lora",
                                    "num_nodes",
                                    "node_rank",
                                    "span_nodes",
                                    "master_addr",
                                    "master_port",
                                    "save_dummy",
                                    "log_dir",
                                    "output_format"},
                         .why = "requests say what to draw, and answers carry it",
                         .values = {{"mode", "t2i: no edits, edit: edits alone; both without it"}}};
  const auto parsed = app::parse_flags(set, arguments);
  if (parsed.is_help) return 0;
  const auto asked = parsed.values.find("mode");
  const std::string mode = asked == parsed.values.end() ? "" : asked->second;
  if (!mode.empty() && mode != "t2i" && mode != "edit")
    throw Error(Kind::kUsage,
                str("--mode ", mode,
                    ": t2i (no edits) and edit (edits alone) are known; without it both are served"));
  const auto environment = app::environment();
  const auto resolved = resolved_of(parsed, environment);
  const auto& output = resolved.settings.output;
  log::set_console(output.quiet                                       ? log::Level::kError
                   : output.verbose || resolved.settings.engine.debug ? log::Level::kDebug
                                                                      : log::Level::kInfo);
  for (const auto& warning : resolved.warnings) log::warning(warning);
  try {
    return run(resolved, environment, mode);
  } catch (const Error& e) {
    throw Error(e.kind(), app::with_origins(e.what(), resolved));
  }
}

}  // namespace atelier::server
