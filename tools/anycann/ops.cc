// anycann ops: the operators of the table, and which of them libopapi exports with an implementation behind.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "tools/anycann/command.h"

namespace anycann::command {
namespace {

struct Row {
  std::string name, tier, family;
  bool implemented;
};

std::string Lower(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(), [](unsigned char c) { return std::tolower(c); });
  return s;
}

// share/anycann/ops.tsv: name, tier, family, yes or no; written by the build from the table and the engine's
// symbols.
std::vector<Row> Load(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<Row> rows;
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    std::istringstream fields(line);
    Row r;
    std::string implemented;
    std::getline(fields, r.name, '\t');
    std::getline(fields, r.tier, '\t');
    std::getline(fields, r.family, '\t');
    std::getline(fields, implemented, '\t');
    r.implemented = implemented == "yes";
    rows.push_back(r);
  }
  return rows;
}

bool Selected(const Row& r, const OpsOptions& o) {
  const std::string filter = Lower(o.filter);
  if (!filter.empty() && Lower(r.name).find(filter) == std::string::npos &&
      Lower(r.family).find(filter) == std::string::npos)
    return false;
  if (!o.tier.empty() && r.tier != o.tier) return false;
  return !(o.implemented && !r.implemented) && !(o.missing && r.implemented);
}

void PrintTable(const std::vector<Row>& rows) {
  const Colours& c = colours();
  std::map<std::string, std::pair<int, int>> tiers;
  for (const Row& r : rows) {
    fmt::print("{}{:<3}{} {} {:<48} {}\n", r.implemented ? c.green : c.yellow, r.implemented ? "yes" : "no",
               c.reset, r.tier, r.name, r.family);
    auto& [have, all] = tiers[r.tier];
    have += r.implemented;
    ++all;
  }
  for (const auto& [tier, count] : tiers)
    fmt::print("{}{}: {} of {} implemented{}\n", c.bold, tier, count.first, count.second, c.reset);
}

}  // namespace

int Ops(const OpsOptions& o) {
  const std::filesystem::path path = Root() / "share/anycann/ops.tsv";
  std::vector<Row> rows = Load(path);
  if (rows.empty()) {
    fmt::print(
        stderr,
        "anycann ops: {} is missing or empty: the toolkit is not complete, build or install it again\n",
        path.string());
    return 1;
  }
  std::erase_if(rows, [&](const Row& r) { return !Selected(r, o); });
  if (!o.json) {
    PrintTable(rows);
    return 0;
  }
  nlohmann::json list = nlohmann::json::array();
  for (const Row& r : rows)
    list.push_back(
        {{"name", r.name}, {"tier", r.tier}, {"family", r.family}, {"implemented", r.implemented}});
  fmt::print("{}\n", list.dump(1));
  return 0;
}

}  // namespace anycann::command
