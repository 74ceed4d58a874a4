// For candidates of facility location, the ground rows to which each still adds.
#pragma once

#include <algorithm>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "seine/backend.hpp"

namespace seine {

// The own ground rows to which a candidate adds, for as many candidates as are wanted: `room` rows each, in backend
// memory. As coverage rises they become few, so a later gain needs no similarities.
class NearLists {
 public:
  struct List {
    Near* at;
    std::int64_t length;
  };

  // Of a list, in rows, so that every candidate may have one; at most a part of the ground rows.
  static std::int64_t room_for(std::int64_t ground_rows, std::int64_t candidates, std::int64_t memory) {
    constexpr std::int64_t kPart = 4;
    const std::int64_t each = memory / static_cast<std::int64_t>(sizeof(Near));
    return std::min(ground_rows / kPart, each / std::max<std::int64_t>(candidates, 1));
  }

  NearLists(Backend& backend, std::int64_t room) : backend_(backend), room_(room) {}

  std::int64_t room() const { return room_; }
  bool has(std::int64_t candidate) const { return lists_.contains(candidate); }
  List& of(std::int64_t candidate) { return lists_.at(candidate); }
  void keep(std::int64_t candidate, List list) { lists_[candidate] = list; }
  void drop(std::int64_t candidate) {
    const auto found = lists_.find(candidate);
    if (found == lists_.end()) return;
    free_.push_back(found->second.at);
    lists_.erase(found);
  }

  Near* take() {
    if (free_.empty()) {
      memory_.emplace_back(backend_, kAtOnce * room_);
      for (std::int64_t k = kAtOnce; k-- > 0;) free_.push_back(memory_.back().data() + k * room_);
    }
    Near* const list = free_.back();
    free_.pop_back();
    return list;
  }
  void give_back(Near* list) { free_.push_back(list); }

 private:
  static constexpr std::int64_t kAtOnce = 64;

  Backend& backend_;
  std::int64_t room_;
  std::vector<Array<Near>> memory_;
  std::vector<Near*> free_;
  std::unordered_map<std::int64_t, List> lists_;
};

}  // namespace seine
