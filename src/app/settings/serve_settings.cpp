// The fields of the resident server.
#include "app/settings/settings.h"

namespace atelier::app {
namespace {

constexpr double kUnlimited = 1e9;

Field of_server(std::string_view name, std::string_view help) {
  return {.name = name, .help = help, .surfaces = kServe};
}
Field number_of_server(std::string_view name, std::string_view help, double least, double most) {
  return {.name = name, .help = help, .surfaces = kServe, .least = least, .most = most};
}

// What Diffgentor's server is told by the environment alone.
void visit_variables(ServeSettings& s, const Visit& visit) {
  visit({.name = "serve_num_inference_steps",
         .variable = "DG_SERVE_NUM_INFERENCE_STEPS",
         .surfaces = kServe,
         .least = 0,
         .most = 1e4},
        &s.num_inference_steps);
  visit({.name = "serve_guidance_scale",
         .variable = "DG_SERVE_GUIDANCE_SCALE",
         .surfaces = kServe,
         .least = 0,
         .most = kUnlimited},
        &s.guidance_scale);
  visit({.name = "serve_debug_log", .variable = "DG_DEBUG_SERVE", .surfaces = kServe}, &s.debug_log);
}

}  // namespace

void ServeSettings::fields(const Visit& visit) {
  visit(of_server("host", "address to listen on; any but loopback needs a key or TLS"), &host);
  visit(number_of_server("port", "0: a free one, which is told at the start", 0, 65535), &port);
  visit(
      number_of_server("max_concurrent", "jobs drawn at once; 0: as many as groups and batches hold", 0, 1e5),
      &max_concurrent);
  visit({.name = "api_key",
         .help = "keys of clients, KEY or NAME:KEY; better in a file, which ps does not show",
         .variable = "ATELIER_API_KEY",
         .surfaces = kServe},
        &api_key);
  visit(of_server("api_key_file", "file with a key on each line, KEY or NAME:KEY"), &api_key_file);
  visit(of_server("tls_cert", "PEM file of the certificate with its chain"), &tls_cert);
  visit(of_server("tls_key", "PEM file of the certificate's key"), &tls_key);
  visit(of_server("cors_origins",
                  "origins whose pages may call the server, such as https://a.example; default: none"),
        &cors_origins);
  visit(of_server("allowed_hosts", "names beside loopback and --host that requests may call the server by"),
        &allowed_hosts);
  visit(of_server("public_url",
                  "the server's address for clients: allows response_format url, signed and expiring"),
        &public_url);
  visit(of_server("data_dir", "folder of jobs and pictures; default: ~/.local/state/atelier/serve"),
        &data_dir);
  visit({.name = "database",
         .help = "postgresql://... in place of SQLite, for several front ends",
         .variable = "ATELIER_DATABASE",
         .surfaces = kServe},
        &database);
  visit(of_server("lora_dir", "folder of adapters that requests may name, by their files' names"), &lora_dir);
  visit(of_server("keep_on_disconnect", "draw on when the client that waits for a picture leaves"),
        &keep_on_disconnect);
  visit(number_of_server("max_body_mb", "of a request's body", 1, 4096), &max_body_mb);
  visit(number_of_server("max_pixels", "width times height", 1, kUnlimited), &max_pixels);
  visit(number_of_server("max_steps", "denoising steps", 1, 1e4), &max_steps);
  visit(number_of_server("max_n", "pictures of one request", 1, 1e3), &max_n);
  visit(number_of_server("max_frames", "of a video", 1, 1e5), &max_frames);
  visit(number_of_server("max_prompt_bytes", "of each text", 1, 1 << 20), &max_prompt_bytes);
  visit(number_of_server("max_adapters", "of one request", 0, 1e3), &max_adapters);
  visit(number_of_server("max_queue", "jobs that may wait; more are answered with 429", 1, 1e6), &max_queue);
  visit(number_of_server("max_per_key", "jobs of one key that wait or are drawn", 1, 1e6), &max_per_key);
  visit(number_of_server("keep_jobs", "finished jobs that are kept with their pictures", 0, 1e7), &keep_jobs);
  visit(number_of_server("batch_wait_ms", "how long a picture may wait for others of its batch", 0, 6e4),
        &batch_wait_ms);
  visit(number_of_server("request_timeout", "seconds from arrival after which a job is given up", 0.1,
                         kUnlimited),
        &request_timeout);
  visit(number_of_server("grace", "seconds after SIGTERM in which what is being drawn may finish", 0,
                         kUnlimited),
        &grace);
  visit_variables(*this, visit);
}

}  // namespace atelier::app
