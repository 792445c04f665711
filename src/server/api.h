// The API of the server: its paths, and what they answer.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "http/server.h"
#include "server/access.h"
#include "server/adapter_shelf.h"
#include "server/api_fields.h"
#include "server/call.h"
#include "server/dispatcher.h"
#include "server/job_inputs.h"
#include "server/request_maker.h"

namespace atelier::server {

struct ApiOptions {
  AccessRules access;
  RequestCaps caps;
  std::string mode;              // "t2i", "edit", or both
  std::string public_url;        // empty: response_format url is refused
  double request_timeout = 600;  // s
  int64_t max_body_bytes = 32 << 20;
  bool keep_on_disconnect = false;
  DispatcherOptions most = {};  // of jobs, to be told
  std::filesystem::path
      inputs;  // folder of the store's pictures, where those that requests begin with are, too
};

class Api : public http::HttpHandler {
 public:
  // All outlive it.
  Api(ApiOptions options, const RequestMaker& maker, Dispatcher& dispatcher, AdapterShelf& adapters,
      JobStore& store, Metrics& metrics);

  http::BodyPlan plan(const http::IncomingRequest& head) override;
  void handle(http::IncomingRequest request, http::HttpReply reply) override;
  void open(http::IncomingRequest request, http::WebSocket socket) override;
  http::OutgoingResponse own_answer(int status, const std::string& message) override;

 private:
  void add(std::string method, std::string pattern, std::string summary, void (Api::*answer)(ApiCall&),
           Route::Body body = Route::Body::kNone, bool is_public = false);
  void add_routes();
  std::string owner_of(const http::IncomingRequest& request) const;  // throws ApiError (401)
  http::OutgoingResponse counted(http::OutgoingResponse response, const std::string& asked) const;

  // images_api.cpp
  void generations(ApiCall& call);
  void edits(ApiCall& call);
  void draw(ApiCall& call, const std::string& kind, const Draft& draft, const std::string& body_hash,
            JobInputs& inputs);
  void settle_hints(const Draft& draft) const;
  MadeRequests requests_of(const Draft& draft) const;
  std::string field_named_by(const std::string& message) const;
  void follow(ApiCall& call, const std::string& kind, const Draft& draft, JobRecord record,
              JobInputs& inputs);
  void follow_earlier(const ApiCall& call, const Draft& draft, const std::string& earlier,
                      const Listener& listener);
  void stream_event(const ApiCall& call, const Draft& draft, const std::string& prefix,
                    const JobEvent& e) const;
  void answer_accepted(const ApiCall& call, const JobRecord& record) const;
  Json images_answer(const Draft& draft, const JobRecord& record, const std::vector<Bytes>& pictures) const;

  // videos_api.cpp
  void create_video(ApiCall& call);
  void list_videos(ApiCall& call);
  void show_video(ApiCall& call);
  void video_content(ApiCall& call);
  void delete_video(ApiCall& call);
  void settle_frames(Draft& draft) const;
  Json video_object(const JobRecord& record, double progress) const;
  JobRecord video_of(const ApiCall& call) const;  // throws ApiError (404)

  // jobs_api.cpp
  void list_jobs(ApiCall& call);
  void show_job(ApiCall& call);
  void cancel_job(ApiCall& call);
  void delete_job(ApiCall& call);
  void job_events(ApiCall& call);
  void all_events(ApiCall& call);
  void job_image(ApiCall& call);
  void signed_image(ApiCall& call);
  JobRecord job_of(const ApiCall& call) const;  // throws ApiError (404)
  void send_picture(ApiCall& call, const JobRecord& record, const std::string& index);
  std::string signed_url(const JobRecord& record, size_t index) const;

  // system_api.cpp
  void page(ApiCall& call);
  void health(ApiCall& call);
  void live(ApiCall& call);
  void ready(ApiCall& call);
  void try_generation(ApiCall& call);
  void metrics(ApiCall& call);
  void openapi(ApiCall& call);
  void capabilities(ApiCall& call);
  void models(ApiCall& call);
  void model(ApiCall& call);
  void status(ApiCall& call);
  void adapters(ApiCall& call);
  void reload_adapters(ApiCall& call);

  const ApiOptions options_;
  const RequestMaker& maker_;
  Dispatcher& dispatcher_;
  AdapterShelf& adapters_;
  JobStore& store_;
  Metrics& metrics_;
  const ApiFields generation_fields_, edit_fields_, video_fields_;
  std::once_flag is_tried_;
  Json verdicts_;  // of the model about fields, when it was tried
  const std::string signing_key_;
  Router router_;
};

}  // namespace atelier::server
