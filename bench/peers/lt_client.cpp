// A BitTorrent client in C++ on libtorrent's own posix disk backend, as the thing to be compared
// with: it checks pieces, as every client does, and knows no file digest. One JSON object per line
// on stdout, told apart by `event`; it ends when its standard input does.
//
//   lt_client seed  <torrent> <folder> [setting=value...]            tells its port
//   lt_client leech <torrent> <folder> <port> [setting=value...]     gets the file from
//   127.0.0.1:<port>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <libtorrent/add_torrent_params.hpp>
#include <libtorrent/alert_types.hpp>
#include <libtorrent/load_torrent.hpp>
#include <libtorrent/posix_disk_io.hpp>
#include <libtorrent/session.hpp>
#include <libtorrent/session_params.hpp>
#include <libtorrent/settings_pack.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

void Set(lt::settings_pack& pack, std::string const& assignment) {
  auto const at = assignment.find('=');
  auto const name = assignment.substr(0, at);
  auto const value = assignment.substr(at + 1);
  int const key = lt::setting_by_name(name);
  if (key < 0) throw std::runtime_error("libtorrent has no setting " + name);
  switch (key & lt::settings_pack::type_mask) {
    case lt::settings_pack::string_type_base:
      pack.set_str(key, value);
      break;
    case lt::settings_pack::bool_type_base:
      pack.set_bool(key, value == "true");
      break;
    default:
      pack.set_int(key, std::stoi(value));
  }
}

double CpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto const seconds = [](timeval const& t) { return t.tv_sec + t.tv_usec / 1e6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::int64_t PeakMemoryBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmHWM:", 0) == 0) return std::atoll(line.c_str() + 6) * 1024;
  return 0;
}

// Whoever waits for us is told, or is gone; either way there is nothing to clean up.
[[noreturn]] void TellUsageAndExit() {
  std::printf("{\"event\":\"usage\",\"cpuSeconds\":%.3f,\"peakMemoryBytes\":%lld}\n", CpuSeconds(),
              static_cast<long long>(PeakMemoryBytes()));
  std::fflush(stdout);
  std::_Exit(0);
}

void WaitForEndOfInput() {
  char buffer[256];
  while (read(STDIN_FILENO, buffer, sizeof buffer) > 0) {
  }
}

template <class Alert>
Alert const* WaitFor(lt::session& session, std::vector<lt::alert*>& alerts) {
  for (;;) {
    session.wait_for_alert(std::chrono::milliseconds(100));
    session.pop_alerts(&alerts);
    Alert const* found = nullptr;
    for (lt::alert* alert : alerts) {
      if (auto const* error = lt::alert_cast<lt::torrent_error_alert>(alert))
        throw std::runtime_error(error->message());
      if (auto const* error = lt::alert_cast<lt::file_error_alert>(alert))
        throw std::runtime_error(error->message());
      if (auto const* match = lt::alert_cast<Alert>(alert)) found = match;
    }
    if (found != nullptr) return found;
  }
}

int Run(std::vector<std::string> const& args) {
  bool const is_seed = args.at(0) == "seed";
  std::size_t const first_setting = is_seed ? 3 : 4;
  lt::settings_pack pack;
  for (std::size_t i = first_setting; i < args.size(); ++i) Set(pack, args[i]);
  pack.set_str(lt::settings_pack::listen_interfaces, "127.0.0.1:0");
  lt::session_params params(pack);
  params.disk_io_constructor = lt::posix_disk_io_constructor;
  lt::session session(std::move(params));
  std::vector<lt::alert*> alerts;
  int const port = WaitFor<lt::listen_succeeded_alert>(session, alerts)->port;

  lt::add_torrent_params torrent = lt::load_torrent_file(args.at(1));
  torrent.save_path = args.at(2);
  torrent.flags &= ~(lt::torrent_flags::auto_managed | lt::torrent_flags::paused);
  if (is_seed) {
    // On trust: reading and hashing it first is not what is measured.
    torrent.flags |= lt::torrent_flags::seed_mode;
    session.add_torrent(torrent);
    std::printf("{\"event\":\"listening\",\"port\":%d}\n", port);
    std::fflush(stdout);
    WaitForEndOfInput();
    TellUsageAndExit();
  }
  std::thread([] {
    WaitForEndOfInput();
    TellUsageAndExit();
  }).detach();
  torrent.peers.emplace_back(lt::make_address("127.0.0.1"),
                             static_cast<std::uint16_t>(std::stoi(args.at(3))));
  auto const started = Clock::now();
  session.add_torrent(torrent);
  WaitFor<lt::torrent_finished_alert>(session, alerts);
  double const seconds = std::chrono::duration<double>(Clock::now() - started).count();
  std::printf("{\"event\":\"done\",\"seconds\":%.6f}\n", seconds);
  std::fflush(stdout);
  for (;;) pause();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Run({argv + 1, argv + argc});
  } catch (std::exception const& error) {
    std::cerr << "lt_client: " << error.what() << '\n';
    std::_Exit(1);
  }
}
