// The commands of the program. Each takes its own arguments and gives the exit code; all may throw Error.
#pragma once
#include <string>
#include <vector>

namespace atelier::app {

using Arguments = std::vector<std::string>;  // behind the command's name, in one spelling

int t2i_command(const Arguments& arguments);      // Diffgentor's flags
int run_command(const Arguments& arguments);      // xDiT's flags
int video_command(const Arguments& arguments);    // xDiT's flags, for videos
int scripts_command(const Arguments& arguments);  // flags of the SDXL scripts
int edit_command(const Arguments& arguments);     // Diffgentor's flags
int serve_command(const Arguments& arguments);
int verify_command(const Arguments& arguments);
int convert_command(const Arguments& arguments);
int config_command(const Arguments& arguments);
int bench_command(const Arguments& arguments);
int report_command(const Arguments& arguments);
int compare_command(const Arguments& arguments);
int layouts_command(const Arguments& arguments);
int plan_command(const Arguments& arguments);
int doctor_command(const Arguments& arguments);
int monitor_command(const Arguments& arguments);
int clean_command(const Arguments& arguments);
int selftest_command(const Arguments& arguments);
int tune_batch_command(const Arguments& arguments);
int completion_command(const Arguments& arguments);
int man_command(const Arguments& arguments);
int tensor_server_command(const Arguments& arguments);  // started by ComfyUI's nodes
int worker_command(const Arguments& arguments);         // started by the program itself

}  // namespace atelier::app
